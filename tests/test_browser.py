"""JupyterLab in a real browser: the explorer and the tutorials (pip install 'ctm[browser]', and a Chromium).

CTM_TUTORIALS=all runs every tutorial, ten minutes, instead of the shortest. CTM_VSCODE=1 operates the explorer once
more, in the library that shows widgets in VS Code's notebooks (needs npm and its registry).
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from tests.conftest import keep, needs_chromium
from tests.tools import ROOT

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install 'ctm[browser]'")
pytestmark = [needs_chromium, pytest.mark.xdist_group("browser")]
CELLS = (
    """import torch, ctm
from ctm.train.fit import build_model
config = ctm.load_config("dfc2020", "demo", embed_dim=32, depth=3, num_heads=4, patch_evidence=True)
data = ctm.load_dataset(config, "val", ctm.make_synthetic("dfc2020", "data", n=16))
torch.manual_seed(0)
model = build_model(config, len(data.classes)).eval()
model.blocks[1].attn.head_gate.log_alpha.data[1:] = -5""",
    "ctm.explore(model, data, threshold='value:0.6')",
)
TUTORIALS = sorted(ROOT.glob("nbs/tutorials/*.ipynb"))
if os.environ.get("CTM_TUTORIALS") != "all":
    TUTORIALS = [p for p in TUTORIALS if p.stem == "quickstart"]
VSCODE = ("@vscode/jupyter-ipywidgets8@1.0.9", "@jupyterlab/services@7", "requirejs@2", "esbuild@0.25")
asked = pytest.mark.skipif("CTM_VSCODE" not in os.environ, reason="CTM_VSCODE is not set")
IMAGE, CLASS_MAP, BINARY, MASK, TRUTH, HEADS = range(6)  # pictures from left to right, then the grid
PICTURES = ".ctm-first .ctm-image, .ctm-wide .ctm-image"


class Lab:
    "A JupyterLab of its own, and what the tests ask of it."

    def __init__(self, home):
        self.home, self.token, self.errors = home, secrets.token_hex(8), []
        self.write("x.ipynb", [nbformat.v4.new_code_cell(source) for source in CELLS])
        news = home / ".settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
        news.parent.mkdir(parents=True)
        news.write_text(json.dumps(dict(fetchNews="false", checkForUpdates=False)))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        own = dict(PYTHONPATH=str(ROOT), CTM_RUNS=str(home / "runs"), CTM_CACHE="off", OMP_NUM_THREADS="1")
        own |= {f"JUPYTERLAB_{name.upper()}_DIR": str(home / f".{name}") for name in ("settings", "workspaces")}
        own |= dict(JUPYTER_CONFIG_DIR=str(home / ".config"), IPYTHONDIR=str(home / ".ipython"))
        options = ["--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={self.url.rsplit(':')[-1]}"]
        options += [f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={home}"]
        options += [f"--ServerApp.extra_static_paths={home / '.static'}"]
        log = (home / "lab.log").open("w")
        env = {k: v for k, v in os.environ.items() if k not in ("IN_TEST", "MPLBACKEND")} | own
        command = [sys.executable, "-m", "jupyterlab", *options]
        self.process = subprocess.Popen(command, env=env, cwd=home, stdout=log, stderr=log)
        for _ in range(300):
            try:
                self.ask("status")
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError((home / "lab.log").read_text()[-2000:])

    def write(self, name, cells):
        kernel = dict(name="python3", display_name="Python 3", language="python")
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=dict(kernelspec=kernel)), self.home / name)

    def ask(self, path, method="GET"):
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or "null")

    def new_page(self, browser):
        page = browser.new_page(viewport=dict(width=1400, height=1000))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        return page

    def open(self, browser, name="x.ipynb"):
        page = self.new_page(browser)
        page.goto(f"{self.url}/lab/tree/{name}?reset&token={self.token}")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        return page

    def run(self, browser, name):
        "The notebook after `Run All Cells`, which has begun."
        page = self.open(browser, name)
        page.wait_for_selector('.jp-Toolbar-kernelName:has-text("Python 3")', timeout=60_000)
        page.wait_for_selector('text="Python 3 (ipykernel) | Idle"', timeout=60_000)  # before, a run asks for a kernel
        menu(page, "Run", "Run All Cells")
        return page

    def end(self):
        "No kernel is left."
        for session in self.ask("sessions"):
            self.ask(f"sessions/{session['id']}", "DELETE")


def menu(page, *names):
    page.locator(f'.lm-MenuBar-item:has-text("{names[0]}")').click()
    page.locator(f'.lm-Menu-item:has-text("{names[1]}")').first.click()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.process.terminate()
    lab.process.wait(30)


def in_vscode(lab, browser):
    "The notebook's cells, run beside the library with which VS Code's Jupyter extension shows widgets."
    folder = lab.home / ".static"
    subprocess.run(["npm", "install", "--silent", "--prefix", folder, *VSCODE], check=True)
    shutil.copy(ROOT / "tests/vscode.js", folder)
    shutil.copy(folder / "node_modules/requirejs/require.js", folder)
    shutil.copy(Path(sys.prefix, "share/jupyter/nbextensions/anywidget/index.js"), folder / "anywidget.js")
    bundle = ["npx", "esbuild", "vscode.js", "--bundle", "--format=esm", "--outfile=host.js", "--external:ws"]
    subprocess.run([*bundle, "--loader:.svg=text", "--log-level=error"], cwd=folder, check=True)
    head = '<!doctype html><link rel="icon" href="data:,"><title>host</title>'
    scripts = '<script src="require.js"></script><script src="host.js" type="module"></script>'
    (folder / "page.html").write_text(f"{head}<body>{scripts}")
    page = lab.new_page(browser)
    page.goto(f"{lab.url}/static/page.html?token={lab.token}")
    page.wait_for_function("!!window.run", timeout=60_000)
    assert [page.evaluate("code => run(code)", code) for code in CELLS] == ["ok"] * len(CELLS)
    return page


@pytest.fixture(scope="module", params=["JupyterLab", pytest.param("VS Code's widgets", marks=asked)])
def page(request, lab, browser):
    "The notebook after `Run All Cells`."
    page = lab.run(browser, "x.ipynb") if request.param == "JupyterLab" else in_vscode(lab, browser)
    page.wait_for_selector(".ctm-first .ctm-image", timeout=120_000)
    page.wait_for_function("found => document.querySelectorAll(found).length == 6", arg=PICTURES, timeout=30_000)
    keep(page, "explorer")
    assert not page.locator('.widget-checkbox:has-text("gated")').is_visible(), "simple controls come first"
    fold(page, "more")
    return page


def picture(page, place):
    return page.locator(PICTURES).nth(place)


def cells(page, place):
    return picture(page, place).locator("xpath=ancestor::button")


def fold(page, name):
    page.locator(f'.ctm-explorer button:text-is("{name}")').click()


def changes(page, place, act):
    "Do something; milliseconds until the picture is another one, a failure where it stays."
    old, start = picture(page, place).get_attribute("src"), time.perf_counter()
    act()
    script = "([found, i, old]) => document.querySelectorAll(found)[i].src != old"
    page.wait_for_function(script, arg=[PICTURES, place, old], timeout=15_000)
    return round(1000 * (time.perf_counter() - start))


def choose(page, name, value):
    box = page.locator(f'.widget-dropdown:has(label:text-is("{name}")) select')
    return lambda: box.select_option(label=value)


def slide(page, name, key="ArrowRight"):
    handle = page.locator(f'.widget-hslider:has(label:text-is("{name}")) .noUi-handle')
    return lambda: handle.press(key)


def tick(page, name):
    return page.locator(f'.widget-checkbox:has-text("{name}") input').click


def press(page, row, number):
    return page.locator(".ctm-toggles").nth(row).locator(f'button:text-is("{number}")').click


def at(page, place, x, y):
    "A click at a share of a picture's width and height."
    whole = cells(page, place)
    return lambda: whole.click(position=dict(x=x * whole.bounding_box()["width"], y=y * whole.bounding_box()["height"]))


def test_each_control_changes_what_it_should(page):
    steps = {
        "image": (IMAGE, slide(page, "image")),
        "class": (CLASS_MAP, choose(page, "class", "urban")),
        "level": (BINARY, slide(page, "level", "PageUp")),
        "fill": (MASK, choose(page, "fill", "none")),
        "threshold": (BINARY, choose(page, "threshold", "quantile")),
        "merge": (MASK, choose(page, "merge", "argmax")),
        "labels": (MASK, choose(page, "labels", "given")),
        "refine": (BINARY, choose(page, "refine", "color")),
        "gated": (CLASS_MAP, tick(page, "gated")),
        "use_evidence": (CLASS_MAP, tick(page, "use_evidence")),
        "layer": (CLASS_MAP, press(page, 0, 2)),
        "head": (CLASS_MAP, press(page, 1, 3)),
        "a head in the grid": (CLASS_MAP, at(page, HEADS, 0.1, 0.1)),
    }
    milliseconds = {name: changes(page, place, act) for name, (place, act) in steps.items()}
    print(milliseconds)  # pytest -s shows them
    keep(page, "explorer-operated")
    assert "marked: row 1, column 1" in picture(page, HEADS).get_attribute("alt")
    cells(page, HEADS).focus()
    changes(page, CLASS_MAP, lambda: page.keyboard.press("Escape"))  # all heads again
    assert "nothing marked" in picture(page, HEADS).get_attribute("alt")


def test_a_patch_is_picked_by_pointer_and_keys(page):
    bars = page.locator(".ctm-bars caption").nth(1)
    at(page, MASK, 0.44, 0.70)()  # of 8 x 8 patches
    sync_api.expect(bars).to_have_text("attention to the patch in row 6, column 4")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    sync_api.expect(bars).to_have_text("attention to the patch in row 7, column 5")
    alt = picture(page, IMAGE).get_attribute("alt")
    assert "marked: row 7, column 5" in alt, "the mark is on every picture"
    assert page.locator(".ctm-bars").nth(1).locator("tbody tr, tr").count() == 8


def test_opacity_zoom_and_the_pointer_need_no_kernel(page):
    over, stage = picture(page, MASK), picture(page, MASK).locator("xpath=..")
    source = over.get_attribute("src")
    slide(page, "opacity", "Home")()
    sync_api.expect(over).to_have_css("opacity", "0")
    slide(page, "opacity", "End")()
    slide(page, "zoom", "PageUp")()
    assert over.get_attribute("src") == source
    page.wait_for_function("x => new DOMMatrix(getComputedStyle(x).transform).a > 1", arg=stage.element_handle())
    fold(page, "reset")
    page.wait_for_function("x => new DOMMatrix(getComputedStyle(x).transform).a == 1", arg=stage.element_handle())
    cells(page, CLASS_MAP).hover(position=dict(x=5, y=5))
    told = page.locator(".ctm-first .ctm-value").nth(CLASS_MAP)
    sync_api.expect(told).to_have_text(re.compile(r"^row 1, column 1: [0-9.e-]+$"))
    assert page.locator(".ctm-first .ctm-ramp").nth(CLASS_MAP).is_visible()


def test_files_are_found_and_dropped(page):
    fold(page, "files")
    strip = page.locator(".ctm-strip .ctm-title").first
    sync_api.expect(strip).to_have_text("4 of 4 images")
    drop = """async ([x, name, bytes]) => {
      const files = new DataTransfer();
      files.items.add(new File([new Uint8Array(bytes)], name));
      x.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true }));
    }"""
    page.evaluate(drop, [cells(page, IMAGE).element_handle(), "words.png", [1, 2, 3]])
    sync_api.expect(page.locator(".ctm-explorer .ctm-error")).to_contain_text("words.png")
    fold(page, "files")


def test_two_settings_stand_side_by_side(page):
    fold(page, "compare")
    sync_api.expect(page.locator(".ctm-explorer")).to_contain_text("no difference yet")
    choose(page, "threshold", "quantile")()
    sync_api.expect(page.locator(".ctm-explorer")).to_contain_text("beside it: threshold value:0.6")
    fold(page, "compare")
    fold(page, "reset")


def test_the_keyboard_reaches_everything(page):
    controls = ".widget-hslider .noUi-handle, .widget-dropdown select, .widget-checkbox input, .ctm-toggles button, "
    controls += '.ctm-cells, .ctm-explorer button, .ctm-explorer input[type="text"]'
    page.evaluate(
        "found => [...document.querySelectorAll(found)]"
        ".filter(x => !x.disabled && !x.hasAttribute('disabled') && x.offsetParent)"
        ".forEach((x, i) => x.dataset.control = i)",
        controls,
    )
    wanted = set(page.evaluate("[...document.querySelectorAll('[data-control]')].map(x => x.dataset.control)"))
    page.locator('[data-control="0"]').focus()
    seen = set()
    for _ in range(2 * len(wanted)):
        seen.add(page.evaluate("document.activeElement.dataset.control || ''"))
        page.keyboard.press("Tab")
    assert len(wanted) > 20
    assert wanted <= seen, "a control that Tab does not reach"


def test_pictures_have_words(page, lab):
    alts = [picture(page, i).get_attribute("alt") for i in range(6)]
    assert all(len(alt) > 20 for alt in alts), alts
    names = page.evaluate("[...document.querySelectorAll('.noUi-handle')].map(x => x.ariaLabel)")
    assert set(names) == {"image", "level", "opacity", "zoom", "page"}
    assert "hatched" in page.locator(".ctm-wide .ctm-title").inner_text()
    assert not lab.errors


def test_a_saved_notebook_shows_the_still_picture(page, lab, browser):
    if "/lab/" not in page.url:
        pytest.skip("a page, not a notebook")
    still = page.locator("figure[class^=ctm-still] img")
    assert not still.is_visible(), "where the explorer is alive, the still picture is hidden"
    before = still.get_attribute("src")
    choose(page, "threshold", "quantile")()
    page.locator('button:text-is("keep this view")').click()
    page.wait_for_function(
        "old => document.querySelector('figure[class^=ctm-still] img').src != old", arg=before, timeout=15_000
    )
    menu(page, "File", "Save Notebook")
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    kept = [dict(o["data"]) for o in nbformat.read(lab.home / "x.ipynb", 4).cells[1].outputs]
    assert before not in kept[1]["text/html"], "what was found is what is saved"
    assert list(kept[0]) == ["application/vnd.jupyter.widget-view+json", "text/plain"]
    page.close()
    lab.end()
    again = lab.open(browser)
    still = again.locator("figure[class^=ctm-still] img")
    sync_api.expect(still).to_be_visible(timeout=30_000)
    again.wait_for_timeout(1000)  # the widget is given up
    sync_api.expect(again.locator("text=Error displaying widget")).to_be_hidden()
    assert "pixel accuracy" in still.get_attribute("alt")
    keep(again, "explorer-saved")
    again.close()


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_and_is_saved_clean(lab, browser, path):
    wanted, done = nbformat.read(path, 4).cells, lab.home / f"{path.stem}.done"
    mark = nbformat.v4.new_code_cell(f"open({done.name!r}, 'w').close()")
    for cell in (blank := [nbformat.from_dict(cell) for cell in wanted]):
        if cell.cell_type == "code":
            cell.outputs = []  # a widget that was saved has no model any more, and the console says so
    lab.write(path.name, [*blank, mark])
    lab.errors.clear()
    page = lab.run(browser, path.name)
    for _ in range(600):
        if done.exists():
            break
        page.wait_for_timeout(1000)
    page.wait_for_selector('text="Python 3 (ipykernel) | Idle"', timeout=60_000)  # outputs follow the kernel's work
    keep(page, path.stem)
    menu(page, "File", "Save Notebook")
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    page.close()
    lab.end()
    saved = nbformat.read(lab.home / path.name, 4).cells[:-1]
    assert [cell.source for cell in saved] == [cell.source for cell in wanted]
    assert (lab.home / path.name).stat().st_size < 500_000
    for cell, old in zip(saved, wanted, strict=True):
        kinds = [(out.output_type, out.get("name")) for out in cell.get("outputs", [])]
        assert ("stream", "stderr") not in kinds and "error" not in dict(kinds), f"{cell.source}\n{cell.outputs}"
        assert bool(kinds) == bool(old.get("outputs")), f"other outputs than in the repository:\n{cell.source}"
        assert not re.search(re.escape(str(lab.home)), json.dumps(cell.get("outputs", []))), "a folder of one machine"
    assert done.exists() and not lab.errors
