"Two runs that share a fit take turns from end to end, whatever their method."

import ctm
from ctm.experiments.results import load_results
from ctm.synthetic.sets import make_synthetic
from tests import apart


def run_again(data, method):
    config = ctm.load_config("kvasir_seg", embed_dim=32, depth=3, num_heads=4, epochs=2)
    ctm.run(config, root=data, method=method, again=True)


def test_both_start_over(tmp_path):
    "Each deletes the fit and trains again; none deletes what the other is working on."
    data = make_synthetic("kvasir_seg", tmp_path / "data", n=8)
    logs = {method: tmp_path / f"{method}.txt" for method in ("cam", "grad_cam")}
    runs = str(tmp_path / "runs")
    processes = [apart.start(run_again, data, method, log=log, CTM_RUNS=runs) for method, log in logs.items()]
    for process in processes:
        process.join()
    said = [log.read_text() for log in logs.values()]
    assert [process.exitcode for process in processes] == [0, 0], said
    assert any("another run" in text for text in said), "they never met"
    results = load_results(tmp_path / "runs" / "results", "all")
    assert sorted(r.method for r in results) == ["cam", "grad_cam"]
    assert len(list(tmp_path.glob("runs/fits/*/masks/*.png"))) == 18 * 2
