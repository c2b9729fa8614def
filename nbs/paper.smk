# The paper as one graph: every run of every table, then the reports that read them. Each job is a report notebook.
#
#   make paper                                  the synthetic sets, two jobs at a time
#   make paper PRESET=paper CORES=8 ROOTS="{voc2012: /data/VOCdevkit}"
#   .venv/bin/snakemake -s nbs/paper.smk --cores 2 --dry-run          what is missing
#   .venv/bin/snakemake -s nbs/paper.smk --profile nbs/slurm          on a cluster
#
# Killed and started again: finished jobs are kept, an interrupted fit goes on from its last epoch, and a notebook
# takes its name only when it is whole.
import json

import yaml

from ctm.core import repo_root, runs_root
from ctm.reports.paper import TABLE_8
from ctm.train.config import load_config


def typed(value):
    "Numbers inside lists and mappings arrive from the command line as text."
    if isinstance(value, dict):
        return {name: typed(part) for name, part in value.items()}
    if isinstance(value, list):
        return [typed(part) for part in value]
    return yaml.safe_load(value) if isinstance(value, str) else value


PRESET = config.get("preset", "demo")
SEEDS = typed(config.get("seeds", [0, 1, 2]))
DATASETS = config.get("datasets", ["dfc2020", "endotect", "ade20k", "voc2012", "coco2014"])
ROOTS = config.get("roots") or {}  # data set -> its folder; without one, the synthetic set or data/<name>
CHANGES = typed(config.get("changes") or {})  # fields of `Config` that differ from the preset, to try the graph out
# masking ratios, on the paper's set and on one that is not in the paper
RATIOS = {name: [0.0, 0.25, 0.5, 0.75, 1.0] for name in ("voc2012", "dfc2020")}
OUT = runs_root() / "paper" / PRESET


def parameters(dataset, **more):
    "A notebook's parameters; JSON is YAML."
    own = dict(preset=PRESET, dataset=dataset, root=ROOTS.get(dataset), changes=CHANGES) | more
    return json.dumps({name: value for name, value in own.items() if value not in (None, {})})


def settings(dataset):
    "The method's runs: itself, Table 8's prices where the paper has them, masking ratios, and each part left out."
    prices = [dict(lam=lam) for lam in TABLE_8.get(dataset, [0.0])]
    ratios = [dict(mask_ratio=ratio) for ratio in RATIOS.get(dataset, [0.0])]
    return [{}, *prices, *ratios, dict(reg_tokens=0)]


JOBS = {}  # what a job leaves behind -> its notebook, parameters, and what it needs
for dataset in DATASETS:
    fits = {}  # of each seed, the method's own first
    for own in settings(dataset):
        key = load_config(dataset, PRESET, **CHANGES | own).key()
        for seed in SEEDS:
            made = f"{OUT}/fit-{dataset}-{key}-seed{seed}.ipynb"
            fits.setdefault(seed, [])
            if made not in JOBS:
                fits[seed].append(made)
                JOBS[made] = ("sensitivity", parameters(dataset, seed=seed, changes=CHANGES | own), [])
    ready = [made for of_seed in fits.values() for made in of_seed]
    for notebook in ("specialized", "segmentation"):
        for seed in SEEDS:
            made = f"{OUT}/{notebook}-{dataset}-seed{seed}.ipynb"
            JOBS[made] = (notebook, parameters(dataset, seeds=[seed]), fits[seed][:1])
            ready.append(made)
    for notebook in ("specialized", "segmentation", "ablation"):
        more = dict(choices="painting") if notebook == "ablation" else {}
        JOBS[f"{OUT}/{notebook}-{dataset}.ipynb"] = (notebook, parameters(dataset, seeds=SEEDS, **more), ready)
    if dataset in RATIOS:
        more = dict(seeds=SEEDS, ratios=RATIOS[dataset])
        JOBS[f"{OUT}/masking_ratio-{dataset}.ipynb"] = ("masking_ratio", parameters(dataset, **more), ready)


rule all:
    input: list(JOBS)


for number, (made, (notebook, given, needs)) in enumerate(JOBS.items()):

    rule:
        name: f"job_{number}_{notebook}"
        output: made
        input: needs
        params:
            notebook=repo_root() / "nbs" / f"{notebook}.ipynb",
            given=given,
        threads: 1
        shell:
            "OMP_NUM_THREADS={threads} python -m ctm.reports.notebook {params.notebook} {output:q} -y {params.given:q} "
            "--no-progress-bar </dev/null"
