"The rules of the house: what is generated matches its source, notebooks stay small, the site holds together."

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings its twin
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted(nbglob(ROOT / "nbs", as_path=True))
PROJECT_VERSION = get_config(path=ROOT).version
MODULES = sorted((ROOT / "ctm").glob("**/[!_]*.py"))
CELLS = {p: json.loads(p.read_text(encoding="utf-8"))["cells"] for p in NOTEBOOKS}


def source(cell):
    return "".join(cell["source"])


def code(path):
    return [c for c in CELLS[path] if c["cell_type"] == "code"]


def module(path):
    "The module that a notebook exports, None for a report."
    found = [re.search(r"^#\| *default_exp +(\S+)", source(c), flags=re.M) for c in code(path)]
    return next((m[1] for m in found if m), None)


def run(*command, **kwargs):
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}  # with it nbdev_export does nothing
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env=env, **kwargs)


CELL_LINES, CLASS_LINES, MODULE_LINES, NOTEBOOK_CELLS, NOTEBOOK_BYTES, REPORT_CELLS = 40, 100, 250, 75, 500_000, 12
TUTORIAL_CELLS = 30
LIBRARY = [p for p in NOTEBOOKS if module(p)]
TUTORIALS = [p for p in NOTEBOOKS if p.parent.name in ("tutorials", "guides")]
PACKAGE_MODULES, CELL_MEDIAN, PUBLIC_NAMES = 12, 8, 350
REPORTS = [p for p in NOTEBOOKS if not module(p) and p.stem != "index" and p not in TUTORIALS]


def lines_allowed(exported):
    "A class cannot be parted; whatever else is exported holds one idea."
    names = re.findall(r"^(?:def|class) (\w+)", exported, flags=re.M)
    return CLASS_LINES if len(names) == 1 and names[0].lstrip("_")[0].isupper() else CELL_LINES


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda p: p.stem)


# Requirements


def test_environment_is_the_pip_route():
    env = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert env["name"] == PROJECT["name"]
    python, *rest = env["dependencies"]
    assert rest == ["pip", {"pip": ["-e .[dev]"]}], "pyproject.toml names the requirements"
    assert python.removeprefix("python=") in Requirement(f"python{PROJECT['requires-python']}").specifier


def test_settings_agree_with_pyproject():
    cfg = get_config(path=ROOT)
    assert PROJECT["requires-python"] == f">={cfg.min_python}"
    assert PROJECT["description"] == cfg.description
    assert PROJECT["name"] == cfg.lib_name


def test_nbdev_family_is_pinned():
    pins = {"nbdev==2.4.14", "execnb==0.1.18", "fastcore==1.14.5", "ghapi==1.1.1", "fastgit==0.1.4"}
    assert pins <= set(PROJECT["optional-dependencies"]["dev"]), "any other mix fails at `import nbdev`"


def test_library_imports_only_what_it_requires():
    required = {canonicalize_name(Requirement(r).name) for r in PROJECT["dependencies"]}
    providers = importlib.metadata.packages_distributions()
    for path in sorted((ROOT / "ctm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for top in {n.split(".")[0] for n in names} - sys.stdlib_module_names - {"ctm"}:
                owners = {canonicalize_name(d) for d in providers.get(top, [top])}
                assert owners & required, f"{path.name} imports {top}: add it to the dependencies"


# Rooms and floors

METHOD = "layers model pruning loss pseudomask refine metrics checkpoint reference".split()
FLOORS = {  # a module imports from its own package or from a lower floor; the parts of one wing know one another
    "core": (0, "core"), "io": (1, "io"), "runtime": (1, "runtime"),
    **dict.fromkeys(METHOD, (2, "method")), **dict.fromkeys(("data", "datasets", "synthetic"), (2, "data")),
    "train": (3, "train"),
    **dict.fromkeys(("segmentation.network", "segmentation.cells"), (3, "train")),  # know nothing of what makes masks
    "predict": (4, "predict"), "baselines": (5, "baselines"),
    "experiments": (6, "experiments"), "segmentation": (7, "segmentation"),
    "project": (8, "project"), "explorer": (9, "explorer"), "reports": (9, "reports"),
}  # fmt: skip


def floor(name):
    "Floor and wing of a module: its own, else its package's."
    return FLOORS.get(name) or FLOORS[name.split(".")[0]]


def name_of(path):
    return ".".join(path.relative_to(ROOT / "ctm").with_suffix("").parts)


NAMES = set(map(name_of, MODULES))


def imports(path):
    "The modules of ctm that a module imports, as dotted names."
    here = name_of(path).split(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or node.module.split(".")[0] == "ctm"):
            base = here[: -node.level] if node.level else []
            parts = [*base, *(node.module or "").split(".")]
            of = ".".join(part for part in parts if part not in ("", "ctm"))
            yield from {of, *(f"{of}.{alias.name}".strip(".") for alias in node.names)} & NAMES


@pytest.mark.quick
def test_imports_go_down():
    for path in MODULES:
        mine = floor(name_of(path))
        for name in imports(path):
            theirs = floor(name)
            assert theirs == mine or theirs[0] < mine[0], f"ctm.{name_of(path)} imports ctm.{name}, which is not lower"


@pytest.mark.quick
def test_imports_have_no_circles():
    TopologicalSorter({name_of(path): set(imports(path)) for path in MODULES}).prepare()  # its error names the circle


def test_front_door_and_method_are_light():
    "A fresh Python imports the package, then the model, then all that the package offers."
    code = """
import sys, ctm
print([m for m in ("torch", "numpy") if m in sys.modules], len(ctm._API))
from ctm.model import ClassTokenViT
print([m for m in ("rasterio", "matplotlib", "pandas", "lightning", "IPython") if m in sys.modules])
[getattr(ctm, name) for name in ctm._API]
"""
    done = run("-c", code, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    door, method = done.stdout.splitlines()
    assert door.startswith("[] ") and int(door.split()[1]) < 30 and method == "[]"


def test_few_public_names():
    texts = [path.read_text(encoding="utf-8") for path in MODULES]
    listed = [re.search(r"^__all__ = (\[.*?\])\n", text, flags=re.S | re.M) for text in texts]
    count = sum(len(ast.literal_eval(m[1])) for m in listed if m)
    remedy = "`#| exporti` what only its package uses, `_` what only its module uses"
    assert count <= PUBLIC_NAMES, f"{count} public names: {remedy}"


def test_cells_are_small():
    def lines(cell):
        return len([line for line in source(cell).splitlines() if not line.startswith("#|")])

    sizes = sorted(lines(cell) for path in LIBRARY for cell in code(path))
    assert sizes[len(sizes) // 2] <= CELL_MEDIAN, f"the median code cell has {sizes[len(sizes) // 2]} lines"


EXPORTED = re.compile(r"^#\| *export[si]?\b", flags=re.M)
NAMED = re.compile(r"^(?:def |class )?(\w+)(?=[(:]| = )", flags=re.M)


def only_prepares(cell):
    "Whether a cell of a lesson only imports, defines and names."
    defines = ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign
    return all(isinstance(node, defines) for node in ast.parse(re.sub(r"^ *[%!].*", "", cell, flags=re.M)).body)


@each(LIBRARY)
def test_exports_are_exercised(path):
    "The next two lessons use each export, by its name or through what is built on it."
    cells = [source(c) for c in code(path)]
    exported = [bool(EXPORTED.search(cell)) for cell in cells]
    lessons = [n for n, cell in enumerate(cells) if not exported[n] and not only_prepares(cell)]
    for place in (n for n, found in enumerate(exported) if found):
        end = [place, *(n for n in lessons if n > place)][:3][-1]
        used = "\n".join(cells[n] for n in range(place + 1, end + 1) if not exported[n])
        for name in re.findall(r"^(?:def|class) ([A-Za-z]\w*)", cells[place], flags=re.M):
            reached, size = {name}, 0
            while len(reached) > size:
                size, word = len(reached), re.compile(rf"\b(?:{'|'.join(reached)})\b")
                reached |= {made for cell in cells[:end] if word.search(cell) for made in NAMED.findall(cell)}
            assert word.search(used), f"no lesson exercises {name} soon"


# What is generated


def files(root):
    "Contents by name of what nbdev writes."
    found = [p for pattern in ("ctm/**/*.py", "nbs/**/*.ipynb") for p in root.glob(pattern)]
    return {p.relative_to(root).as_posix(): p.read_text(encoding="utf-8") for p in found}


@pytest.mark.quick
def test_library_follows_notebooks(tmp_path):
    junk = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "_*.html")
    for folder in ("ctm", "nbs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=junk)
    shutil.copy(ROOT / "settings.ini", tmp_path)
    before = files(tmp_path)
    for p in (tmp_path / "ctm").rglob("*.py"):
        if p.name != "__init__.py":  # nbdev fills in its version, the rest is written by hand
            p.unlink()
    tools = "from nbdev.doclinks import nbdev_export; from nbdev.clean import nbdev_clean"
    done = run("-c", f"{tools}; nbdev_export(); nbdev_clean()", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = files(tmp_path)
    orphans = sorted(before.keys() - after.keys())
    assert not orphans, f"no notebook makes {orphans}: delete them"
    stale = sorted(name for name in after if after[name] != before.get(name))
    assert not stale, f"{stale} do not match the notebooks: run `make export`"


@pytest.mark.quick
def test_readme_follows_index():
    done = run("nbs/_sphinx/readme.py", "--check", cwd=ROOT)
    assert done.returncode == 0, done.stderr


def shown(path):
    "Text of a page, with what its cells have put out."
    outputs = ["".join(out.get("text", "")) for cell in code(path) for out in cell["outputs"]]
    return "\n".join([*map(source, CELLS[path]), *outputs])


def test_contents_name_every_package_and_notebook():
    page = ROOT / "nbs/guides/contents.ipynb"
    text = shown(page)
    named = {p.name if p.suffix else f"{p.name}/" for p in (ROOT / "ctm").iterdir() if p.name[0] not in "_."}
    tree = set(re.findall(r"^  (\S+\.py|\w+/) +\S", text, flags=re.M))
    assert named == tree, "run nbs/guides/contents.ipynb"
    told = [p for p in NOTEBOOKS if p.stem != "index" and (p not in LIBRARY or p.parent.name == "method")]
    missing = [p.name for p in told if f"({os.path.relpath(p, page.parent)})" not in text]
    assert not missing, f"contents.ipynb does not say what {missing} hold"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(nbs/guides/contents.ipynb)" in readme, "README leads to the contents"


def test_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 10_000, "move what is not needed on the first page to the site"
    assert text.index("figures/photographs.jpg") < 1_000, "photographs first"
    assert text.index("## Install") < text.index("## Your images") < text.index("## Results") < text.index("bibtex")
    assert '-p preset paper -y "changes: {pretrained: ' in text, "a run of preset=paper is told its weights"


def test_the_package_index_gets_absolute_links(tmp_path):
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "ctm").mkdir()
    shutil.copy(ROOT / "ctm" / "__init__.py", tmp_path / "ctm")
    done = run("-c", "from setuptools.build_meta import prepare_metadata_for_build_wheel as p; p('.')", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    links = re.findall(r"\]\(([^)]+)\)", metadata.read_text(encoding="utf-8").partition("\n\n")[2])
    assert len(links) > 25 and all(link.startswith("https://") for link in links), links


@pytest.mark.parametrize("page", ["README.md", "data_prep/README.md"])
def test_links_of_a_page_on_disk(page):
    links = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [link for link in links if not urlsplit(link).scheme and not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing, f"{page} links to {missing}, which are not there"


@pytest.mark.quick
def test_ruff():
    done = run("-m", "ruff", "check", ".", cwd=ROOT)
    assert done.returncode == 0, done.stdout


# Notebooks

HOME = re.compile(r"(?<![\w.:/-])/(home|root|tmp|work|Users|mnt|var)/")


@each(NOTEBOOKS)
def test_saved_outputs(path):
    assert path.stat().st_size < NOTEBOOK_BYTES, "save smaller figures: `ctm.data.plot.crisp_figures()`"
    for cell in code(path):
        for out in cell["outputs"]:
            assert out["output_type"] != "error", f"a saved error: {out['ename']} in\n{source(cell)}"
            data = {"text/plain": out.get("text", ""), **out.get("data", {})}
            text = "".join("".join(v) for k, v in data.items() if k.startswith("text/"))
            found = HOME.search(text)
            assert not found, f"an output names a folder of one machine: {text[found.start() :][:80]}"


@each(LIBRARY)
def test_library_notebook(path):
    folder = "" if path.parent.name == "method" else f"{path.parent.name}."
    name = module(path)
    assert re.fullmatch(rf"\d\d_{name.removeprefix(folder)}", path.stem), "a module is named after its notebook"
    chapters = sorted(int(p.stem[:2]) for p in path.parent.glob("*.ipynb"))
    assert chapters == list(range(1, len(chapters) + 1)), "the chapters of a package are numbered from 01"
    assert len(chapters) <= PACKAGE_MODULES, "split the package"
    assert len(CELLS[path]) <= NOTEBOOK_CELLS, "split the notebook by idea"
    exported = [s for s in map(source, code(path)) if re.search(r"^#\| *export[si]?\b", s, flags=re.M)]
    long = {s.split("\n")[1]: n for s in exported if (n := len(s.splitlines())) > lines_allowed(s)}
    assert not long, f"one idea, at most {CELL_LINES} lines ({CLASS_LINES} for one class), per exported cell: {long}"
    text = (ROOT / "ctm" / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
    body = re.sub(r"\A.*?^# %% auto #0\n__all__ = .*?\]\n", "", text, flags=re.S | re.M)
    lines = [line for line in body.splitlines() if not line.startswith("# %% ")]
    assert len(lines) <= MODULE_LINES, f"ctm.{name} has {len(lines)} lines: split it by idea"


@each(REPORTS)
def test_report_notebook(path):
    assert len(CELLS[path]) <= REPORT_CELLS, "what does not fit belongs in the library"
    tagged = [c for c in code(path) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1, "papermill needs exactly one cell tagged `parameters`"
    logic = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.Try
    for cell in code(path):
        tree = ast.parse(re.sub(r"^\s*[%!].*", "", source(cell), flags=re.M))
        found = [type(n).__name__ for n in ast.walk(tree) if isinstance(n, logic)]
        assert not found, f"export this logic to the library: {found} in\n{source(cell)}"
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            assert cell["outputs"], f"run the notebook before saving it, nothing under\n{source(cell)}"


@each(TUTORIALS)
def test_tutorial_notebook(path):
    assert len(CELLS[path]) <= TUTORIAL_CELLS, "a tutorial has one story"
    shown = [c for c in code(path) if "#| hide" not in source(c)]
    pictures = any("image/png" in out.get("data", {}) for c in shown for out in c["outputs"])
    assert pictures or path.parent.name == "guides", "a tutorial shows pictures"
    for cell in shown:
        tree = ast.parse(source(cell))
        assert not isinstance(tree.body[-1], ast.Expr) or cell["outputs"], f"run it before saving:\n{source(cell)}"


# The site


class Links(HTMLParser):
    "A page's anchors, its links, and what it loads."

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads = set(), set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        self.links.update(attrs[k] for k in ("href", "src") if attrs.get(k))
        if tag in {"script", "img", "iframe"} or attrs.get("rel") in {"stylesheet", "preload"}:
            self.loads.update(attrs[k] for k in ("href", "src") if attrs.get(k))


@pytest.mark.xdist_group("site")
def test_site(site):
    pages = {p: Links(p) for p in site.rglob("*.html") if site / "_static" not in p.parents}
    for p in NOTEBOOKS:
        name = re.sub(r"(^|/)\d+_", r"\1", p.relative_to(ROOT / "nbs").with_suffix(".html").as_posix())
        assert name in {"index.html", *pages[site / "index.html"].links}, f"{name} is not in the contents"
    for page, found in pages.items():
        outside = [link for link in found.loads if urlsplit(link).netloc]
        assert not outside, f"{page.name} needs a network for {outside}"
        for link in found.links:
            url = urlsplit(link)
            if stored := re.match(
                rf"{re.escape(PROJECT['urls']['Source'])}/(?:blob|tree)/main/([^#]*)(?:#L(\d+))?", link
            ):
                source_file = ROOT / unquote(stored[1])
                assert source_file.exists(), f"{page.name} links to {link}, which is not in the repository"
                assert not stored[2] or int(stored[2]) <= len(source_file.read_text().splitlines()), link
            if url.scheme or url.netloc:
                continue
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            assert target.exists(), f"{page.name} links to {link}, which is not there"
            if url.fragment and target in pages:
                assert url.fragment in pages[target].ids, f"{page.name}: no such place {link}"


OUTSIDE = {"arxiv.org", "colab.research.google.com", "ctm-wsss.github.io", "github.com", "pypi.org"}
OUTSIDE |= {"click.palletsprojects.com"}  # the library of the command line, named in signatures
PHOTOGRAPHS = re.compile(r"farm\d\.staticflickr\.com")


@pytest.mark.xdist_group("site")
def test_site_links_that_leave_it(site):
    for page in site.rglob("*.html"):
        for link in Links(page).links:
            url = urlsplit(link)
            if not url.netloc:
                continue
            assert url.scheme == "https", f"{page.name}: {link}"
            known = url.netloc in OUTSIDE or PHOTOGRAPHS.fullmatch(url.netloc)
            assert known, f"{page.name} sends readers to {url.netloc}: is that meant?"
            if url.netloc == "colab.research.google.com":
                opened = ROOT / url.path.partition("/blob/main/")[2]
                assert "%pip install" in "".join(map(source, code(opened))), f"{opened.name} installs nothing on Colab"


def contents_of(page):
    "Groups of a page's contents: caption -> links of its entries, those below an entry apart."
    text = page.read_text(encoding="utf-8")
    menu = text[text.index('<nav class="bd-docs-nav') if '<nav class="bd-docs-nav' in text else 0 :]
    menu = menu[: menu.index("</nav>")]
    parts = re.split(r'<span class="caption-text">([^<]+)</span>', menu)[1:]
    first = r'<li class="toctree-l1[^"]*"><a class="[^"]*reference internal" href="([^"#]*)'
    return {name.strip(): re.findall(first, found) for name, found in zip(parts[::2], parts[1::2], strict=True)}


@pytest.mark.xdist_group("site")
def test_site_contents(site):
    groups = contents_of(site / "guides/method.html")
    assert list(groups) == ["Start", "Your images", "The method", "Reproduce", "Data sets", "Reference", "About"]
    before = [link for name in list(groups)[: list(groups).index("Reference")] for link in groups[name]]
    assert len(before) <= 25, f"{len(before)} entries before the reference"
    assert all(len(links) > 1 for links in groups.values()), "a group of one entry is an entry"
    names = {re.sub(r"(^|/)\d+_", r"\1", p.relative_to(ROOT / "nbs").with_suffix(".html").as_posix()) for p in LIBRARY}
    listed = {Path(os.path.normpath(Path("guides", link))).as_posix() for links in groups.values() for link in links}
    assert not names & listed, "modules stand under the reference's page alone"


@pytest.mark.xdist_group("site")
def test_site_heads(site):
    seen = {}
    for name in ("index", "beyond", "guides/method", "tutorials/quickstart", "method/pruning"):
        text = (site / f"{name}.html").read_text(encoding="utf-8")
        head = text[: text.index("</head>")]
        tags = dict(re.findall(r'<meta (?:name|property)="([\w:]+)" content="([^"]*)"', head))
        title = re.search(r"<title>(.*?)</title>", head, flags=re.S)[1]
        assert PROJECT_VERSION in title, title
        assert len(tags["description"]) > 30 and tags["og:description"] == tags["description"]
        picture = tags["og:image"].partition("/ctm/")[2]
        assert (site / picture).suffix in {".png", ".jpg"} and (site / picture).exists(), picture
        seen[title] = tags["description"]
    assert len(seen) == len({*seen.values()}) == 5, seen


def test_architecture_follows_its_code():
    assert run("nbs/_sphinx/architecture.py", "--check").returncode == 0, "run nbs/_sphinx/architecture.py"
