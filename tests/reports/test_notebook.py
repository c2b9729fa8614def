"Report notebooks by papermill: on other data, by two processes, without a network, refused, and as one graph."

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import papermill
import pytest
import torch
from click.testing import CliRunner
from papermill.cli import papermill as papermill_command
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from ctm.core import check_choice, check_range
from ctm.data.transforms import resize_mask
from ctm.datasets.folder import find_images
from ctm.io.images import read_image
from ctm.reports.notebook import _foreseen
from ctm.segmentation import network
from ctm.synthetic.sets import make_synthetic
from tests.tools import ROOT

REPORTS = sorted(path for path in (ROOT / "nbs").glob("*.ipynb") if path.stem != "index")
TINY = dict(embed_dim=32, depth=2, num_heads=4, epochs=1)


def parameters_of(report):
    "Names and annotations of a report's parameters, by Python's own parser."
    cells = json.loads(report.read_text(encoding="utf-8"))["cells"]
    (source,) = ("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    body = [node for node in ast.parse(source).body if not isinstance(node, ast.ImportFrom)]
    assert all(isinstance(node, ast.AnnAssign) for node in body)
    return {node.target.id: ast.unparse(node.annotation) for node in body}


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.stem)
def test_papermill_reads_every_parameter(report, caplog):
    "Those that it does not read are greeted with `Passed unknown parameter`."
    found = papermill.inspect_notebook(report)
    assert {name: known["inferred_type_name"] for name, known in found.items()} == parameters_of(report)
    assert not caplog.records
    help = CliRunner().invoke(papermill_command, [str(report), "--help-notebook"]).output
    for name, known in found.items():
        assert known["help"], f"{name} has no comment on its last line"
        assert f"  {name}: " in help and known["help"] in help


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_the_outputs_folder_is_in_every_clone():
    "papermill makes no folder for its output, and README's lines are printed to be run at once."

    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)

    tracked = {Path(name).parent for name in git("ls-files").stdout.splitlines()}
    told = re.findall(r"papermill nbs/\S+ (\S+\.ipynb)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(told) > 1 and {Path(output).parent for output in told} <= tracked
    assert git("check-ignore", *told).stdout.split() == told, "what is written there is nobody's change"


@pytest.fixture(scope="module")
def polyps(tmp_path_factory):
    return make_synthetic("kvasir_seg", tmp_path_factory.mktemp("data"), n=4)


@pytest.fixture(scope="module")
def cut():
    "What takes a command's network away, but for loopback, where a kernel is; nothing where that is not permitted."
    words = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return words


def run_report(cut, report, folder, **parameters):
    given = json.dumps(dict(dataset="kvasir_seg", changes=TINY) | parameters)  # JSON is YAML
    output = str(folder / f"{report}.ipynb")
    command = [*cut, sys.executable, "-m", "papermill", f"nbs/{report}.ipynb", output, "-y", given]
    env = {k: v for k, v in os.environ.items() if k not in ("IN_TEST", "CTM_KEEP")} | {"CTM_RUNS": str(folder)}
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env)


def cells_of(report, **parameters):
    "Code of a report's cells as papermill writes them."
    book = load_notebook_node(str(ROOT / "nbs" / f"{report}.ipynb"))
    return [cell.source for cell in parameterize_notebook(book, parameters).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("report", ["specialized", "segmentation", "ablation"])
def test_report_on_other_data(report, cut, polyps, tmp_path, monkeypatch, capfd):
    "One by papermill; the others in this process, which has imported everything."
    if report == "specialized":
        done = run_report(cut, report, tmp_path, root=str(polyps), seeds=[5])
        assert done.returncode == 0, done.stderr[-2000:]
        said = done.stderr
    else:
        monkeypatch.setenv("CTM_RUNS", str(tmp_path))
        monkeypatch.delenv("CTM_KEEP", raising=False)
        monkeypatch.setitem(network._PRESETS["demo"], "epochs", (1, "a test"))  # of stage two
        variables = {}
        for source in cells_of(report, dataset="kvasir_seg", changes=TINY, root=str(polyps), seeds=[5]):
            exec(source, variables)
        said = capfd.readouterr().err
    assert "\nctm: fitting: " in f"\n{said}", "the log is not silent"
    results = list(tmp_path.glob("results/*.json"))
    assert results and all(path.stem.count("-seed5") for path in results)
    table = (tmp_path / "tables" / f"{report}-synthetic-kvasir_seg-demo.csv").read_text()
    assert f"papermill nbs/{report}.ipynb runs/{report}.ipynb -p dataset kvasir_seg" in table.splitlines()[0]
    assert (tmp_path / "tables" / f"{report}-synthetic-kvasir_seg-demo.tex").exists()
    assert not list((ROOT / "figures").rglob("*seed5*")), "a run of one's own must not touch what is committed"


@pytest.mark.parametrize(
    ("report", "parameters", "message"),
    [
        ("specialized", dict(dataset=None, root="/nowhere"), "is the folder of one data set: name it"),
        ("pseudomasks", dict(dataset="voc2021"), "voc2021"),
        ("qualitative", dict(dataset="kvasir_seg", methods=["cam"]), "need 'paper' among them"),
        ("segmentation", dict(dataset="kvasir_seg", root="/nowhere"), "/nowhere"),
        ("sensitivity", dict(dataset="dfc"), "dataset='dfc' is unknown"),
        ("sensitivity", dict(lam=-1), "lam=-1.0 is out of range"),
        ("sensitivity", dict(lamda=0.1), "parameter='lamda' is unknown"),
        ("sensitivity", dict(sedes=[0]), "parameter='sedes' is unknown"),
        ("sensitivity", dict(root="/nowhere"), "/nowhere/ROIs0000_validation: no DFC2020 labels"),
        ("own_data", dict(images=202405), "images=202405 is not text; give it as text: -r images TEXT"),
        ("own_data", dict(out=1e3), "out=1000.0 is not text; give it as text: -r out TEXT"),
        ("own_data", dict(size=64.0), "size=64.0 is not a whole number; write -p size NUMBER"),
        ("own_data", dict(seed=True), "seed=True is not a whole number; write -p seed NUMBER"),
        ("own_data", dict(background="yes"), "background='yes' is not True or False; write -p background True"),
        ("real_tiles", dict(dubai_changes="{}"), "papermill takes it as -y 'dubai_changes: {...}'"),
    ],
)
def test_report_refuses(report, parameters, message, tmp_path, monkeypatch):
    "The report's cells as papermill writes them, in this process: the first that fails says why."
    monkeypatch.setenv("CTM_RUNS", str(tmp_path))
    variables = {}
    with pytest.raises((ValueError, FileNotFoundError, RuntimeError), match=re.escape(message)) as caught:
        for source in cells_of(report, **parameters)[:4]:
            exec(source, variables)
    assert _foreseen(caught.value, caught.tb), "a sentence, without a traceback"


def a_slip():
    return int("x")


@pytest.mark.parametrize(
    ("call", "short"),
    [
        (lambda: read_image(ROOT / "Makefile"), True),  # BadFileError
        (lambda: find_images(ROOT / "nowhere"), True),  # DatasetNotFoundError
        (lambda: open(ROOT / "nowhere"), True),  # of the system, which names the file
        (lambda: check_range("lam", -1, 0), True),
        (lambda: check_range("lam", -1, "0"), False),  # a TypeError of the library's lines
        (lambda: check_choice("dataset", "voc", 1), False),
        (lambda: resize_mask(None, (2, 2)), False),
        (lambda: torch.zeros(2) + torch.zeros(3), False),
        (a_slip, False),
    ],
)
def test_errors_that_are_one_sentence(call, short):
    with pytest.raises(Exception) as caught:  # noqa: B017
        call()
    assert _foreseen(caught.value, caught.tb) == short


def test_papermill_ends_with_the_sentence(tmp_path):
    "A number that papermill read where text is wanted: one sentence, below no traceback but papermill's own."
    given = [str(tmp_path / "out.ipynb"), "-p", "lam", "0.01", "-p", "root", "2024_05", "--no-progress-bar"]
    command = [sys.executable, "-m", "papermill", "nbs/sensitivity.ipynb", *given]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1
    sentence = "ValueError: root=202405 is not text; give it as text: -r root TEXT, or quoted in -y"
    assert done.stderr.strip().endswith(f'Exception encountered at "In [3]":\n{sentence}')
    assert "unknown parameter" not in done.stderr
    outputs = [out for cell in load_notebook_node(given[0]).cells for out in cell.get("outputs", [])]
    (folded,) = [out.data["text/html"] for out in outputs if out.output_type == "display_data"]
    assert folded.startswith("<details>") and "check_parameters(globals(), *names)" in folded


@pytest.mark.skipif(importlib.util.find_spec("snakemake") is None, reason="Snakemake needs Python 3.11")
def test_the_paper_is_one_graph(tmp_path):
    "Each run once, though the whole method belongs to two tables; reports come after what they read."
    own = ["datasets=[dfc2020,voc2012]", "seeds=[0,1]", "changes={epochs: 1}"]
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "nbs" / "paper.smk", "--cores", "1", "--dry-run"]
    env = dict(os.environ, CTM_RUNS=str(tmp_path))
    done = subprocess.run([*command, "--config", *own], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    log = done.stdout + done.stderr
    made = set(re.findall(r"output: (\S+\.ipynb)", log))
    fits = {name for name in made if "/fit-" in name}
    assert len(fits) == 2 * (9 + 8)  # per seed: the method, prices (3, VOC 1), masking ratios (4, VOC 5), no [REG]
    assert len(made - fits) == 2 * (2 * 2 + 4)  # specialized and segmentation per seed, and the four that read all
    assert not list(tmp_path.rglob("*.ipynb"))


@pytest.fixture(scope="module")
def by_two(cut, polyps, tmp_path_factory):
    "The demo's report by two processes, without a network where that is permitted: its folder, and how it ended."
    folder = tmp_path_factory.mktemp("two")
    return folder, run_report(cut, "sensitivity", folder, root=str(polyps), seed=5, processes=2)


def test_demo_by_two_processes(by_two):
    folder, done = by_two
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ctm: fitting: kvasir_seg, " in done.stderr
    (result,) = (json.loads(path.read_text()) for path in folder.glob("results/*-seed5.json"))
    assert result["extra"]["processes"] == 2


def test_demo_needs_no_network(cut, by_two):
    "So do the reports on other data, by one process each."
    if not cut:
        pytest.skip("no network may be taken away here")
    folder, done = by_two
    assert done.returncode == 0, done.stderr[-3000:]
    assert list((folder / "results").glob("*.json"))
