"README.md from nbs/index.ipynb, without Quarto: `python nbs/_sphinx/readme.py [--check]`."

import json
import posixpath
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTE = "<!-- Made from nbs/index.ipynb by `make export`: edit that notebook. -->"
LINK = re.compile(r'(\]\(|\b(?:src|href)=")([\w./-]+)((?:#[\w.-]*)?[)"])')  # neither URLs nor bare anchors


def relink(
    text: str,  # markdown
    folder: str,  # where the markdown stands, from the root of the repository
    place: Callable[[str], str],  # a path from that root -> the link to write
) -> str:
    "`text` with its relative links, each as `place` writes it."

    def new(m: re.Match) -> str:
        return m[1] + place(posixpath.normpath(posixpath.join(folder, m[2]))) + m[3]

    return LINK.sub(new, text)


def blocks(nb: dict) -> Iterator[str]:
    "Markdown cells as they are; code cells fenced unless they ask not to be shown, their outputs below."
    for cell in nb["cells"]:
        source = "".join(cell["source"])
        if re.search(r"^#\| *(hide|include: *false)", source, flags=re.M):
            continue
        if cell["cell_type"] == "markdown":
            yield relink(source, "nbs", str)
        elif cell["cell_type"] == "code":
            code = re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip()
            if code and not re.search(r"^#\| *echo: *false", source, flags=re.M):
                yield f"```python\n{code}\n```"
            for out in cell["outputs"]:
                if "text/markdown" in out.get("data", {}):
                    yield relink("".join(out["data"]["text/markdown"]), "nbs", str)
                    continue
                text = "".join(out.get("text") or out.get("data", {}).get("text/plain", ""))
                if text.strip() and out.get("name") != "stderr" and "image/png" not in out.get("data", {}):
                    yield f"```text\n{text.rstrip()}\n```"


def main(check: bool) -> int:
    "Write README.md, or with `check` only tell whether it is stale."
    nb = json.loads((ROOT / "nbs/index.ipynb").read_text(encoding="utf-8"))
    text = "\n\n".join([NOTE, *blocks(nb)]) + "\n"
    readme = ROOT / "README.md"
    if not check:
        readme.write_text(text, encoding="utf-8")
    elif not readme.exists() or readme.read_text(encoding="utf-8") != text:
        print("README.md does not match nbs/index.ipynb: run `make export`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
