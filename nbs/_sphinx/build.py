"""The docs site: `python nbs/_sphinx/build.py [folder]`, by default settings.ini's doc_path.

nbdev processes the notebooks, this file turns them into MyST notebooks, Sphinx makes the pages.
No cell runs: outputs are the saved ones, documentation comes from the exported modules.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import nbformat
import traitlets.traitlets
from execnb.nbio import read_nb
from finish import finish
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup, _nbpath2html, nbglob
from nbdev.processors import FilterDefaults
from nbdev.showdoc import show_doc
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from readme import ROOT, relink

HERE = Path(__file__).resolve().parent
CFG = get_config(path=HERE)
# an annotation of traitlets that is imported for type checkers alone; Python before 3.11.4 evaluates it
vars(traitlets.traitlets).setdefault("Self", "Self")
SITE = CFG.doc_host + CFG.doc_baseurl
SOURCE = f"{CFG.git_url}/blob/{CFG.branch}"
COLAB = f"https://colab.research.google.com/github/{CFG.user}/{CFG.repo}/blob/{CFG.branch}"
TAGS = {
    ("echo", "false"): "remove-input",
    ("output", "false"): "remove-output",
    ("code-fold", "true"): "hide-input",
}


class Documented(FilterDefaults):
    "nbdev's processing, less what runs cells or serves Quarto; exported code stays, to be shown on demand."

    def base_procs(self):
        skip = {"FrontmatterProc", "insert_warning", "exec_show_docs", "rm_export", "mv_exports", "add_fold"}
        return [p for p in super().base_procs() if p.__name__ not in skip]


def page_name(path: str) -> str:
    "nbs/datasets/01_x.ipynb -> datasets/x, as in the links that nbdev writes."
    return _nbpath2html(Path(path).relative_to("nbs")).with_suffix("").as_posix()


CONTENTS = {  # in the order in which a reader asks; modules hang under `api` alone, package by package
    "Start": ["tutorials/quickstart", "tutorials/attention", "guides/gallery"],
    "Your images": ["tutorials/own_images", "tutorials/satellite", "own_data"],
    "The method": ["guides/method", "beyond"],
    "Reproduce": ["guides/reproduce", "real", "real_tiles", "pseudomasks", "segmentation", "specialized", "sensitivity",
                  "ablation", "masking_ratio", "qualitative", "parameters", "planning"],
    "Data sets": ["guides/datasets", "tutorials/new_dataset"],
    "Reference": ["api", "guides/extend", "guides/glossary"],
    "About": ["guides/contents", "guides/limits", "guides/differences", "benchmark", "growth", "reliability", "hostile",
              "guides/cite"],
}  # fmt: skip
PACKAGES = [  # in the order of the floors, the lowest first
    "method", "layers", "io", "runtime", "data", "datasets", "synthetic", "train", "predict", "baselines",
    "experiments", "segmentation", "project", "explorer", "reports",
]  # fmt: skip


def about(package: str) -> str:
    "What is in a package, as its `__init__` says."
    if package == "method":
        return "The paper's parts, on the ground floor of `ctm`."
    return import_module(f"{CFG.lib_name}.{package}").__doc__


def chosen(wanted: list[str], names: list[str]) -> list[str]:
    "Names that are wanted, in that order; `folder/` wants all that are in it."
    return [n for w in wanted for n in names if n == w or w.endswith("/") and n.startswith(w)]


def label(page: str, name: str) -> str:
    "The anchor of a documented name; two modules may use the same one."
    return f"{page}-{name}".replace("/", "-").lower()


def both_schemes(m: re.Match) -> str:
    "A figure for light and one for dark, sharp at any size, where there is a drawing of it."
    if not (ROOT / f"{m[2]}.svg").exists():
        return m[0]
    kind = m[2].split("/")[-1].split("-")[0]
    return f"!{m[1]}(/{m[2]}.svg){{.only-light .{kind}}}\n!{m[1]}(/{m[2]}-dark.svg){{.only-dark .{kind}}}"


def darken(drawing: str) -> str:
    "matplotlib's SVG with light text on the theme's dark ground; pictures inside and the colours of data stay."
    drawing = drawing.replace("#ffffff", "#121212").replace("#000000", "#e0e0e0")
    return drawing.replace("<svg ", '<svg style="fill: #e0e0e0" ', 1)


def plain_text(markdown: str) -> str:
    "The last paragraph without marks: what stands before a figure says what it shows."
    text = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*$\\]|^[#> -]+", r"\1", markdown.strip().split("\n\n")[-1], flags=re.M)
    return " ".join(text.split())


def joined(x):
    "nbformat on disk keeps texts as lists of lines; in memory they are strings."
    if isinstance(x, dict):
        return {k: joined(v) for k, v in x.items()}
    return "".join(x) if isinstance(x, list) and all(isinstance(o, str) for o in x) else x


def documented(path: str) -> list:
    "The cells of a notebook. A `show_doc(name)` cell has its documentation, in markdown, as `doc`."
    nb = read_nb(ROOT / path)
    Documented()(nb)
    names = {}
    for cell in nb.cells:
        for module in (cell.get("directives_") or {}).get("default_exp", []):
            names.update(vars(import_module(f"{CFG.lib_name}.{module}")))
    for cell in nb.cells:
        outputs = (o for o in cell.get("outputs", []) if o.get("data") != {})  # where a progress bar was
        cell.outputs = [nbformat.from_dict(joined(o)) for o in outputs]
        for data in (o["data"] for o in cell.outputs if "text/html" in o.get("data", {})):
            data["text/html"] = data["text/html"].replace('<table id="T_', '<table class="dataframe" id="T_')
        for data in (o.get("data", {}) for o in cell.outputs):
            for kind in {"text/html", "text/markdown"} & {*data}:  # a number stays beside its deviation
                data[kind] = data[kind].replace(" ± ", "\u00a0±\u00a0")
            if "text/html" in data:
                data["text/html"] = re.sub(r"`([\w.]+)`", r"<code>\1</code>", data["text/html"])
        call = re.search(r"^show_doc\(.*\)", cell.source, flags=re.M)
        if cell.cell_type == "code" and call:
            shown = eval(call[0], {**names, "show_doc": show_doc})
            cell.doc = NbdevLookup().linkify(shown._repr_markdown_())
    return nb.cells


class Page:
    "One notebook on its way to the site."

    def __init__(self, path: str):
        self.path, self.name, self.cells = path, page_name(path), documented(path)
        headings = re.findall(r"^### (\S+)$", "\n".join(c.get("doc", "") for c in self.cells), flags=re.M)
        self.anchors = {label(self.name, h): h for h in reversed(headings)}  # `Cached` may share `cached`'s
        texts = "\n".join(c.source for c in self.cells if c.cell_type == "markdown")
        self.about = re.search(r"^> (.+)$", texts, flags=re.M)[1]
        self.installs = "%pip install" in (ROOT / path).read_text(encoding="utf-8")  # so that it runs on Colab

    def text(self, s: str, labels: set[str]) -> str:
        "Markdown of nbdev and Quarto -> MyST."

        def to_name(m: re.Match) -> str:  # a method without its own entry is found at its class
            for name in (m[2], m[2].split(".")[0]):
                if label(m[1], name) in labels:
                    return f"](#{label(m[1], name)})"
            return f"](/{m[1]}.ipynb)"

        def to_path(path: str) -> str:
            if path.endswith(".ipynb") and path.startswith("nbs/"):
                return f"/{page_name(path)}.ipynb"
            return f"/{path}" if path.startswith("figures/") else f"{SOURCE}/{path}"

        s = relink(s, os.path.dirname(self.path), to_path)
        s = re.sub(rf"\]\({re.escape(SITE)}/([\w/-]+)\.html#([\w.]+)\)", to_name, s)
        s = re.sub(r"!(\[[^]]*\])\(/(figures/[^)]+)\.(?:png|svg)\)", both_schemes, s)
        s = re.sub(r"^::: *\{\.callout-(\w+)[^}]*\}", r":::{\1}", s, flags=re.M)
        s = re.sub(r"(?<![\w`])@(fig-[\w-]+)", r"{numref}`\1`", s)
        return re.sub(r"(?<![\w`])@(tbl-[\w-]+)", r"[table](#\1)", s)

    def doc(self, s: str, labels: set[str]) -> str:
        "`show_doc`'s markdown as MyST, its link to the source after the heading."
        link = re.search(r"^\[source\]\((\S+?)\)\{.*?\}\n", s, flags=re.M)
        s = self.text(s.replace(link[0], "") if link else s, labels).removeprefix("---").lstrip()
        after = f"\n\n[source]({link[1]}){{.source}}" if link else ""

        def heading(m: re.Match) -> str:
            anchor = label(self.name, m[1])
            target = f"({anchor})=\n" if self.anchors[anchor] == m[1] else ""
            return f"{target}### `{m[1]}`{after}"

        return re.sub(r"^### (\S+)$", heading, s, count=1, flags=re.M)

    def opened(self, source: str) -> str:
        "First text of a notebook that installs what it needs, with the link that opens it on Colab."
        link = f"[Open in Colab]({COLAB}/{self.path})"
        return re.sub(r"^(> .+)$", rf"\1\n\n{link}{{.colab}}", source, count=1, flags=re.M)

    def convert(self, labels: set[str]) -> Iterator:
        "The page's cells. Exported code follows its documentation, folded."
        docs, exported, before = [], [], ""
        if self.installs:
            self.cells[0].source = self.opened(self.cells[0].source)
        for c in self.cells:
            directives = set(getattr(c, "directives_", None) or ())
            before = c.source if c.cell_type == "markdown" else before
            if "doc" in c:  # nbdev adds a cell's names in reverse order
                place = 0 if hasattr(c, "has_sd") else len(docs)
                docs.insert(place, new_markdown_cell(self.doc(c.doc, labels)))
                continue
            yield from docs + exported
            docs, exported = [], []
            if c.cell_type == "code" and directives & {"export", "exports", "exporti"}:
                exported = [self.code(c, [] if "exports" in directives else ["hide-input"])]
            elif not directives & {"hide", "default_exp"}:
                yield from self.plain(c, labels, plain_text(before))
        yield from docs + exported

    def plain(self, c, labels: set[str], before: str) -> Iterator:
        "A cell of text, or of code with its outputs, by Quarto's options. `before` is the text before it."
        if c.cell_type == "markdown":
            yield new_markdown_cell(self.text(c.source, labels))
        if c.cell_type != "code":
            return
        options = dict(re.findall(r"^#\| *([\w-]+): *(.*?)\s*$", c.source, flags=re.M))
        cell = self.code(c, [tag for (k, v), tag in TAGS.items() if options.get(k) == v])
        if not cell.source or options.get("include") == "false":
            return
        caption = {k: v.strip("\"'") for k, v in options.items() if k.endswith("-cap")}
        if "tbl-cap" in caption:
            yield new_markdown_cell(f"({options.get('label')})=\n**Table.** {caption['tbl-cap']}")
        alt = options.get("fig-alt", caption.get("fig-cap", before)).strip("\"'")
        cell.metadata.mystnb = {"image": {"alt": alt}} if alt else {}
        if "fig-cap" in caption:
            cell.metadata.mystnb["figure"] = {"name": options.get("label"), "caption": caption["fig-cap"]}
        yield cell

    def code(self, c, tags: list[str]):
        "A code cell without its directives."
        source = re.sub(r"^#\|.*\n?", "", c.source, flags=re.M).strip()
        return new_code_cell(source, outputs=c.outputs, metadata={"tags": tags})


def api_page(pages: dict[str, Page], below: list[str]) -> list:
    "Every module and its public names, package by package. `below` hang under this page in the contents."
    cells = [
        new_markdown_cell("# Every module\n\n> Every public name of `ctm`, package by package from the lowest floor up")
    ]
    for package in PACKAGES:
        lines = [f"## {package}", "", about(package), ""]
        for name in chosen([f"{package}/"], list(pages)):
            anchors = sorted(pages[name].anchors.items(), key=lambda item: item[1].lower())
            links = ", ".join(f"[`{shown}`](#{anchor})" for anchor, shown in anchors if "." not in shown)
            module = name.removeprefix("method/").replace("/", ".")
            lines.append(f"- [**ctm.{module}**](/{name}.ipynb): {pages[name].about}  \n  {links}")
        cells.append(new_markdown_cell("\n".join(lines)))
    return [*cells, toctree(below)]


def toctree(names: list[str], caption: str = ""):
    "A part of the contents."
    head = ["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else [])]
    return new_markdown_cell("\n".join([*head, "", *names, "```"]))


def write_sources(folder: Path) -> None:
    "The site as Sphinx reads it: MyST notebooks, the figures, a table of contents on the first page."
    paths = [p.relative_to(ROOT).as_posix() for p in sorted(nbglob(CFG.nbs_path, as_path=True))]
    pages = {page_name(path): Page(path) for path in paths}
    if len(pages) < len(paths):
        raise SystemExit(f"two notebooks make the same page: {paths}")
    labels = set().union(*(p.anchors for p in pages.values()))
    parts = {part: chosen(wanted, [*pages, "api"]) for part, wanted in CONTENTS.items()}
    placed = {"index", *(name for listed in parts.values() for name in listed)}
    order = chosen([f"{package}/" for package in PACKAGES], list(pages))
    rest = [name for name in dict.fromkeys([*order, *pages]) if name not in placed]
    made = {name: list(page.convert(labels)) for name, page in pages.items()} | dict(api=api_page(pages, rest))
    made["index"] += [toctree(listed, part) for part, listed in parts.items()]
    for name, cells in made.items():
        spec = {"name": "python3", "display_name": "python3", "language": "python"}
        target = folder / f"{name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": spec}), target)
    if (ROOT / "figures").exists():
        shutil.copytree(ROOT / "figures", folder / "figures")
    for drawing in folder.glob("figures/*.svg"):
        drawing.with_name(f"{drawing.stem}-dark.svg").write_text(darken(drawing.read_text()))


def main(out: Path) -> int:
    "Build beside `out` and put it in place only when Sphinx had nothing to say."
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.") as tmp:
        src, html = Path(tmp, "src"), Path(tmp, "html")
        write_sources(src)
        options = ["-q", "-W", "--keep-going", "-c", HERE, "-d", Path(tmp, "doctrees")]
        failed = subprocess.call([sys.executable, "-m", "sphinx", *options, src, html])
        if not failed:
            finish(html)
            if out.exists():
                out.rename(Path(tmp, "old"))
            html.rename(out)
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else CFG.doc_path).resolve()))
