"What a page tells browsers, search engines and whoever shows a link to it; what the site's own search reads."

import html

import sphinx.search
from docutils import nodes
from nbdev.config import get_config

CFG = get_config(path=__file__)
FIRST_TITLE = "Pixel masks from image-level labels"
PICTURE = "_images/photographs.jpg"  # of a page that has none of its own


def about(doctree: nodes.document) -> str:
    "Subtitle of a page, else its first paragraph."
    found = next(doctree.findall(nodes.block_quote), None) or next(doctree.findall(nodes.paragraph), None)
    return " ".join(found.astext().split()) if found else CFG.description


def picture(builder, doctree: nodes.document) -> str:
    "First picture of a page that a preview can show, from the root of the site."
    found = (builder.images.get(image["uri"], "") for image in doctree.findall(nodes.image))
    return next((f"_images/{name}" for name in found if name.endswith((".png", ".jpg"))), PICTURE)


def add_head(app, pagename: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    "Description, preview and title of a page."
    if doctree is None:
        return
    if pagename == "index":
        context["title"] = FIRST_TITLE
    shown = about(doctree)
    tags = {
        "og:type": "website",
        "og:site_name": CFG.title,
        "og:title": context["title"],
        "og:description": shown,
        "og:url": f"{app.config.html_baseurl}{pagename}.html",
        "og:image": app.config.html_baseurl + picture(app.builder, doctree),
    }
    lines = [f'<meta name="description" content="{html.escape(shown)}" />']
    lines += [f'<meta property="{name}" content="{html.escape(text)}" />' for name, text in tags.items()]
    lines.append('<meta name="twitter:card" content="summary_large_image" />')
    context["metatags"] = "\n".join([context.get("metatags", ""), *lines])


class ProseIndex(sphinx.search.IndexBuilder):
    "Index of the site's search without exported code: its names stand in the documentation above it."

    def feed(self, docname: str, filename: str, title: str, doctree: nodes.document) -> None:
        shown = doctree.deepcopy()
        for cell in list(shown.findall(nodes.container)):
            if "tag_hide-input" in cell["classes"] and cell.parent is not None:
                cell.parent.remove(cell)
        super().feed(docname, filename, title, shown)


def setup(app) -> dict:
    "Sphinx's hook."
    sphinx.search.IndexBuilder = ProseIndex
    app.connect("html-page-context", add_head)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
