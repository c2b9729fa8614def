"Tables and figures show hostile names as text."

import dataclasses
import html
import shlex
import warnings

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from ctm.data.plot import legend, shortened
from ctm.experiments.results import Result, load_result
from ctm.io.safe import figure_text
from ctm.reports.kinds import kinds_table
from ctm.reports.sweeps import report_command
from ctm.reports.tables import Row, save_table, score_table, styled, table
from ctm.train.config import load_config
from tests.tools import HOSTILE_NAMES, ROOT


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_in_tables_and_figures(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    warnings.simplefilter("ignore")  # fonts lack some letters
    shown = pd.DataFrame({"setting": [name, "b"], "mIoU": ["50.0 ± 1.0", "-"]})
    page = styled(shown).to_html()
    assert "<script>" not in page and "<b>" not in page and name[:3] in html.unescape(page)
    file = save_table(shown, name, name)
    assert file.parent == tmp_path / "runs" / "tables" and pd.read_csv(file, comment="#").shape[1] == 2
    tex = file.with_suffix(".tex").read_text().splitlines()
    assert len(tex) == 12 and tex[7].count(" & ") == 1 and tex[7].endswith(r"\\")
    assert not name.startswith("$") or "\\$" in tex[7]
    figure, ax = plt.subplots()
    ax.set_title(figure_text(name))
    legend(figure, (name, "b"), ("#111111", "#222222"))
    figure.savefig(tmp_path / "a.svg")
    shown = shortened([name] * 9)
    assert len(shown) < 120 and shown.count("\n") <= 1
    plt.close(figure)
    assert shlex.split(report_command("own_data", images=name))[-1] == name


def test_new_columns_where_a_result_has_them():
    "Kept results render as they did; those that know it show the trivial rate and mAP beside accuracy."
    old = Result(dict(classifier_accuracy=0.9, miou=0.5), load_config("voc2012").stored(), 0, True, 1.0, "toy")
    new = dataclasses.replace(old, metrics=old.metrics | dict(always_no=0.85, mean_ap=0.6, ap=[0.6, None]))
    assert [name for name in score_table([Row("a", (old,))], [0]) if name in ("always no", "mAP")] == []
    both = score_table([Row("a", (old,)), Row("b", (new,))], [0])
    place = list(both).index("classifier acc.")
    assert list(both)[place + 1 : place + 3] == ["always no", "mAP"]
    assert both["always no"].tolist() == ["-", "85.0"] and both["mAP"].tolist() == ["-", "60.0"]
    assert "mean_ap" not in table([old]) and table([old, new])["mean_ap"].tolist()[1] == 60


@pytest.mark.parametrize(
    "file", sorted((ROOT / "figures" / "results").glob("*voc2012*.json"))[:5], ids=lambda f: f.stem
)
def test_kept_results_have_their_kinds(file):
    result = load_result(file)
    shown = kinds_table([result])
    assert set(shown["background"]) <= {"rule", "learnt"}
    assert shown["mIoU"][0] == pytest.approx(100 * result.metrics["miou"])
    assert not {"always_no", "mean_ap"} & set(result.metrics)
