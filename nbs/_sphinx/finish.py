"What is done to the pages after Sphinx: words for toggles, and less to load."

import re
from pathlib import Path

ICON = re.compile(
    r'(?:"([\w-]+)"|(\w+)):\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\["[^"]*","[^"]*"\])\],?'
)  # name: [width, height, [other names], code, drawing]


def name_toggles(html: Path) -> None:
    "Words for what opens a part of the contents; the theme shows an arrow alone."
    for page in html.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = text.replace("<summary><span", '<summary aria-label="Pages of this part"><span')
        page.write_text(text, encoding="utf-8")


def keep_icons(html: Path) -> None:
    "Font Awesome's script with the icons that some page shows: 2,141 drawings are 1.5 MB, of which a site shows 20."
    scripts = [path for path in html.glob("_static/**/*.js") if path.name != "fontawesome.js"]
    texts = (path.read_text(encoding="utf-8") for path in [*html.rglob("*.html"), *scripts])
    shown = {name for text in texts for name in re.findall(r"\bfa-([a-z][\w-]*)", text)}

    def kept(m: re.Match) -> str:
        names = {m[1] or m[2], *re.findall(r'"([\w-]+)"', m[3])}
        return m[0] if names & shown else ""

    script = html / "_static/scripts/fontawesome.js"
    text = script.read_text(encoding="utf-8")
    short = ICON.sub(kept, text)
    if len(short) > len(text) / 4:
        raise SystemExit(f"{script.name} has another form than ICON in finish.py expects: adapt it")
    script.write_text(short, encoding="utf-8")


def drop_maps(html: Path) -> None:
    "Nothing of what only the theme's makers need."
    for path in html.glob("_static/**/*.map"):
        path.unlink()


def finish(html: Path) -> None:
    "Pages as they are published."
    name_toggles(html)
    keep_icons(html)
    drop_maps(html)
