"""The published curves as the authors' files give them: which steps, and figures by hand."""

import csv

from bench import published_curves
from tools.published import FOLDER

RETURNS = {
    0: [9, 9],
    2_000: [9, 9],
    10_000: [1, 2],
    15_000: [9, 9],
    20_000: [3, 5],
    190_000: [6, 8],
}


def test_figures_are_those_of_all_seeds_at_the_steps_that_are_kept(tmp_path, capsys):
    sources = list(csv.DictReader((FOLDER / "sources.csv").read_text().splitlines()))
    for source in sources:
        _, _, _, _, name, kind, _, path = source["source"].split("/", 7)
        file = tmp_path / name / path
        if kind == "tree":  # a file for each seed
            for seed in (0, 1):
                rows = [f"{step},{seeds[seed]}" for step, seeds in RETURNS.items()]
                folder = file / f"Ant-v5/sac/results/seed_{seed}"
                folder.mkdir(parents=True)
                text = "\n".join(["step,avg_return", *rows, f"1000000,{seed}"[: 9 * seed]])
                (folder / "learning_curve.csv").write_text(text)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"Ant_v4,avg_return,{step}.0,{one}" for step, two in RETURNS.items() for one in two]
        file.write_text(
            "\n".join(["env_name,metric,env_step,value", *rows, "Ant_v4,other,10000,7"])
        )
    assert published_curves.main([str(tmp_path)]) == 0
    who, *lines = capsys.readouterr().out.splitlines()
    assert who == "who,task,seeds,step,mean,std,iqm"
    expected = ["2,10000,2,1,2", "2,20000,4,1,4", "2,190000,7,1,7"]
    assert lines[:3] == [f"SAC,Ant-v4,{one}" for one in expected]
    assert lines[-3:] == [f"XuanCe SAC,Ant-v5,{one}" for one in expected]
    assert len(lines) == 3 * len(sources)
    assert published_curves.main([str(tmp_path / "no")]) == 2
    assert "SimbaV2/results/baseline/sac.csv: is missing; clone SimbaV2" in capsys.readouterr().err
