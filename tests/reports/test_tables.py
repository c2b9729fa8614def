"Tables and figures show hostile names as text."

import html
import shlex
import warnings

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from ctm.data.plot import legend, shortened
from ctm.io.safe import figure_text
from ctm.reports.sweeps import report_command
from ctm.reports.tables import save_table, styled
from tests.tools import HOSTILE_NAMES


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_in_tables_and_figures(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    warnings.simplefilter("ignore")  # fonts lack some letters
    table = pd.DataFrame({"setting": [name, "b"], "mIoU": ["50.0 ± 1.0", "-"]})
    page = styled(table).to_html()
    assert "<script>" not in page and "<b>" not in page and name[:3] in html.unescape(page)
    file = save_table(table, name, name)
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
