"""What a study found, from runs that are made up: who is compared, and what is said of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bert_jax.errors import UserError
from experiments import study as studies
from experiments.document import page
from experiments.found import Found, Point, task_score
from experiments.grid import Cell
from experiments.plan import Arm, Plan, Rate, build, check_same, unknown
from experiments.recipes import cell_settings, config_of, overrides, preset
from experiments.results import beside_paper, comparable, compare, verdict
from experiments.runs import Run
from experiments.sections import Report, document
from experiments.study import CONTINUATION, MLM_LOSS, WORDS, Paper, Scale, Study, slots

CELLS = ("15%", "40%", "80%")
STUDY = Study(
    name="made_up",
    question="How much?",
    cells=lambda scale: [Cell(name) for name in CELLS],
    baseline="15%",
    metrics=(MLM_LOSS,),
    papers=(
        Paper("A. Author 2023", "large", ("MNLI",),
              {"15%": (84.2,), "40%": (84.5,), "80%": (80.8,)}, "MNLI"),
    ),
    scales={"cpu": Scale("tiny", "small", steps=10)},
)  # fmt: skip
PLAN = Plan(
    "made_up", "cpu", "15%",
    tuple(
        Arm(name, name, name, ("steps",), "configs/bert.py:tiny", {}, 10, 1e9) for name in CELLS
    ),
    3, {},
)  # fmt: skip


def found(scores, statuses=None):
    """Runs of `scores`: by cell, a loss a seed, None where there is none."""
    runs = []
    for arm in PLAN.arms:
        for seed, loss in enumerate(scores[arm.name]):
            status = (statuses or {}).get((arm.name, seed), "done" if loss is not None else "")
            mine = {} if loss is None or status == "diverged" else {"eval_mlm_loss": loss}
            curve = [
                Point(
                    step, 100.0 * step, 1e8 * step, 0.1 * step, {"eval_mlm_loss": loss + 10 - step}
                )
                for step in (5, 10)
                if loss is not None
            ]
            why = "no finite loss in the end" if status == "diverged" else ""
            runs.append(Found(Run(arm, seed, Path("x")), status, why, mine, curve, {}))
    return runs


CLEAR = {"15%": (5.0, 5.2, 5.4), "40%": (4.51, 4.7, 4.89), "80%": (6.0, 6.21, 6.4)}


def text_of(blocks):
    return page("made up", blocks)


def report(runs):
    return Report(STUDY, PLAN, runs, [compare(PLAN, runs, MLM_LOSS, "steps")], ["cpu"])


def test_signal_is_told_beside_the_paper():
    one = compare(PLAN, found(CLEAR), MLM_LOSS, "steps")
    said = verdict(one)
    assert "40% (−0.5000) is better than 15%; 80% (+1.0033) is worse than 15%" in said
    (beside,) = beside_paper(STUDY, one)
    assert "agrees with it on 40% and 80%" in beside and "A. Author 2023 (MNLI; large)" in beside


def test_disagreement_and_noise_are_told():
    scores = CLEAR | {"40%": (5.1, 5.15, 5.5), "80%": (4.5, 4.7, 4.9)}
    one = compare(PLAN, found(scores), MLM_LOSS, "steps")
    (beside,) = beside_paper(STUDY, one)
    assert "disagrees with it on 80%" in beside and "decides nothing on 40%" in beside
    assert "40% is not to be told apart from 15%" in verdict(one)


def test_a_cell_that_diverged_is_shown_and_not_averaged():
    """Its good seeds stand in the table, as values; the comparison counts it."""
    runs = found(CLEAR, {("40%", 1): "diverged"})
    one = compare(PLAN, runs, MLM_LOSS, "steps")
    (line,) = [line for line in one.lines if line.arm.name == "40%"]
    assert line.said == "diverged (1 of 3 seeds)" and line.row is None
    assert "40% diverged." in verdict(one)
    shown = text_of(document(report(runs), {}))
    assert "diverged (1 of 3 seeds)" in shown and "(4.5100, 4.8900)" in shown
    assert "40% seed 1: no finite loss in the end" in shown
    fewer = [one for one in runs if one.run.arm.name != "40%"]
    plan = Plan("x", "cpu", "15%", (PLAN.arms[0], PLAN.arms[2]), 3, {})
    without = compare(plan, fewer, MLM_LOSS, "steps")
    assert one.judged.rows["80%"].p > without.judged.rows["80%"].p


def test_what_diverged_stands_beside_the_curves_and_the_costs():
    """A line is of the other seeds, and says so; of a cell without any its name is there."""
    all_of_one = {("80%", seed): "diverged" for seed in range(3)}
    runs = found(CLEAR, {("40%", 1): "diverged"} | all_of_one)
    shown = text_of(document(report(runs), {}))
    assert 'data-name="40% (1 of 3 diverged)"' in shown
    assert 'data-name="80% (3 of 3 diverged)"' in shown
    assert shown.count('<path class="line"') == 2 * 3
    assert "<td>80%</td><td>0 of 3, 3 diverged</td><td>10</td><td></td>" in shown
    one = compare(PLAN, runs, MLM_LOSS, "steps")
    assert verdict(one) == "Not judged: no cell has a score beside 15%. 40% and 80% diverged."


def test_a_loss_on_other_rows_is_not_compared():
    """Pairs of another kind are other tokens. A probability says nothing of a difference to them,
    and they are none of the comparisons."""
    rows = {"15%": (900.0, 6.3), "40%": (900.0, 6.300001), "80%": (899.0, 6.36)}
    runs = [
        replace(one, scores={**one.scores, "eval_mlm_weight": rows[one.run.arm.name][0],
                             "eval_unigram_loss": rows[one.run.arm.name][1]})
        for one in found(CLEAR)
    ]  # fmt: skip
    one = compare(PLAN, runs, MLM_LOSS, "steps")
    assert [line.said for line in one.lines] == ["3 of 3", "3 of 3", "3 of 3, on other rows"]
    assert one.lines[2].row.mean == pytest.approx(6.2033, abs=1e-4)
    assert one.lines[2].row.difference is None and "80%" not in verdict(one)
    plan = Plan("x", "cpu", "15%", PLAN.arms[:2], 3, {})
    without = compare(plan, [one for one in runs if one.run.arm.name != "80%"], MLM_LOSS, "steps")
    assert one.judged.rows["40%"].p == without.judged.rows["40%"].p
    assert "is of other tokens" in text_of(document(report(runs), {}))


def test_a_cell_that_failed_does_not_cost_the_others_their_seeds():
    whole = {seed: float(seed) for seed in range(5)}
    scores = {"a": whole, "b": whole, "c": {0: 1.0, 4: 2.0}, "d": {0: 1.0, 4: 2.0}}
    assert list(comparable(scores, "a")) == ["a", "b"]
    few = {"a": whole, "b": whole, "c": {0: 1.0, 2: 1.0, 4: 2.0}}
    assert list(comparable(few, "a")) == ["a", "b", "c"], "most of its seeds are there"
    assert list(comparable({"a": whole, "b": {7: 1.0}}, "a")) == ["a"]


def test_a_baseline_that_diverged_leaves_nothing_to_compare():
    one = compare(PLAN, found(CLEAR, {("15%", 0): "diverged"}), MLM_LOSS, "steps")
    assert verdict(one) == "Not judged: the baseline 15% is diverged (1 of 3 seeds)."


def test_what_was_not_run_is_said_to_be():
    scores = CLEAR | {"80%": (None, None, None)}
    runs = found(scores, {("80%", 1): "failed"})
    one = compare(PLAN, runs, MLM_LOSS, "steps")
    assert [line.said for line in one.lines] == ["3 of 3", "3 of 3", "failed (1 of 3 seeds)"]
    assert one.judged.rows["40%"].differs


def test_a_cell_that_has_just_begun_does_not_hold_up_the_others():
    scores = {"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": {0: 1.0, 1: 2.0}, "c": {0: 1.0}, "d": {2: 1.0}}
    assert list(comparable(scores, "a")) == ["a", "b"]
    assert list(comparable({name: scores[name] for name in "ac"}, "a")) == ["a", "c"]
    runs = found(CLEAR | {"40%": (4.5, None, None)})
    said = [line.said for line in compare(PLAN, runs, MLM_LOSS, "steps").lines]
    assert said == ["3 of 3", "1 of 3, too few", "3 of 3"]
    runs = found(CLEAR | {"40%": (4.5, 4.6, None)})
    said = [line.said for line in compare(PLAN, runs, MLM_LOSS, "steps").lines]
    assert said == ["3 of 3, 2 compared", "2 of 3", "3 of 3, 2 compared"]


def test_a_question_that_a_cell_trains_on_is_secondary():
    runs = [
        replace(one, scores={"probe_continuation": 0.6 + 0.01 * one.run.seed, "probe_words": 0.7},
                terms=("mlm", "nsp") if one.run.arm.name == "40%" else ("mlm",))
        for one in found(CLEAR)
    ]  # fmt: skip
    comparisons = [compare(PLAN, runs, metric, "steps") for metric in (WORDS, CONTINUATION)]
    shown = text_of(document(Report(STUDY, PLAN, runs, comparisons, ["cpu"]), {}))
    assert shown.count("A secondary figure") == 1
    assert "A secondary figure: 40% has NSP, which trains on this question." in shown


def test_scores_of_tasks_have_median_and_spread():
    runs = [
        replace(one, scores={"task_sst2_accuracy": score})
        for one, score in zip(found(CLEAR), (0.8, 0.9, 0.82, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4),
                              strict=True)
    ]  # fmt: skip
    shown = text_of(document(Report(STUDY, PLAN, runs, [], ["cpu"]), {}))
    row = "<td>15%</td><td>3 of 3</td><td>0.8200</td><td>0.8000</td><td>0.9000</td><td>0.0529</td>"
    assert row in shown and "Fine-tuned: sst2 accuracy" in shown


def test_what_each_cell_took_is_told():
    shown = text_of(document(report(found(CLEAR)), {}))
    row = "<td>40%</td><td>3 of 3</td><td>10</td><td>1000</td><td>1e+09</td><td>1</td>"
    assert row in shown


def test_slots_are_enough_and_no_more():
    assert [slots(rate, 30) for rate in (0.1, 0.15, 0.3)] == [3, 5, 9]


def test_one_seed_is_not_judged():
    one = compare(PLAN, found({name: losses[:1] for name, losses in CLEAR.items()}), MLM_LOSS,
                  "steps")  # fmt: skip
    assert verdict(one).startswith("Not judged: two seeds")


@pytest.mark.parametrize("name", studies.names())
def test_studies_can_be_run_at_every_scale(name):
    """Their cells are configs that can be, of one tokenizer; their papers' rows are cells."""
    study = studies.find(name)
    assert set(study.scales) == set(studies.SCALES)
    for scale_name, scale in study.scales.items():
        plan = build(study, scale_name, {}, 5, {})
        cells = study.grid(scale)
        names = [cell.name for cell in cells]
        assert names[0] == study.baseline == plan.baseline and len(names) > 1
        assert set(scale.cells) <= set(names)
        folders = [arm.folder for arm in plan.arms]
        assert len(set(folders)) == len(folders)
        if not scale.cells:
            assert all(set(paper.rows) <= set(names) for paper in study.papers)
        settings = [cell_settings(study, scale, cell, {}) for cell in cells]
        configs = [config_of(study, scale, *one) for one in zip(cells, settings, strict=True)]
        assert all(config.corpus == configs[0].corpus for config in configs)
        assert len({(c.model.vocab_size, c.model.position_offset) for c in configs}) == 1
        if scale_name in ("cpu", "gpu"):
            assert plan.seeds >= 5


def test_equal_flops_are_equal():
    plan = build(studies.find("variants"), "cpu", {}, 5, {})
    base = plan.arm("BERT")
    assert base.budgets == ("flops", "tokens", "time")
    for arm in plan.of_budget("flops")[1:]:
        assert arm.flops == pytest.approx(base.flops, rel=1 / arm.steps)
    assert len({arm.steps for arm in plan.of_budget("flops")}) > 2


def test_warmup_stays_its_share_where_a_budget_decides_the_steps():
    """Of the paper's scale too, where each preset has a warm-up of its own."""
    plan = build(studies.find("variants"), "paper", {"train.steps": 1000}, 5, {})
    for arm in plan.arms:
        family = arm.config.partition(".")[0].rpartition("/")[2]
        own = preset(studies.find("variants"), studies.find("variants").scales["paper"], family)
        share = own.optimizer.warmup_steps / own.train.steps
        assert arm.settings["optimizer.warmup_steps"] == pytest.approx(share * arm.steps, abs=0.5)


def test_slots_go_by_the_length_that_is_given():
    study = studies.find("masking_rate")
    plan = build(study, "cpu", {"data.sequence_length": 64}, 5, {})
    assert plan.arm("80%").settings["data.max_predictions"] == 52
    with pytest.raises(UserError, match="data.max_predictions=10 has no room .* set it to 20"):
        build(studies.find("sharing"), "cpu", {"data.sequence_length": 64}, 5, {})


def test_a_warmup_that_is_given_is_the_baselines():
    rates = {name: Rate(1000.0 * 8**n, 4.0) for n, name in enumerate(("batch 1×", "batch 8×"))}
    study = studies.find("batch_size")
    plan = build(study, "smoke", {"optimizer.warmup_steps": 24, "train.steps": 96}, 2, rates)
    assert [(arm.steps, arm.settings["optimizer.warmup_steps"]) for arm in plan.arms] == [
        (96, 24), (12, 3),
    ]  # fmt: skip
    none = build(study, "smoke", {"optimizer.warmup_steps": 0, "train.steps": 96}, 2, rates)
    assert none.arms[0].settings["optimizer.warmup_steps"] == 0
    for given in (-5, 96):
        with pytest.raises(UserError, match=f"warmup_steps={given}: must be .* below the 96"):
            build(study, "smoke", {"optimizer.warmup_steps": given, "train.steps": 96}, 2, rates)


def test_tokens_and_time_decide_the_steps_as_they_were_calibrated():
    """Of a cell that was not, nobody knows them."""
    study = studies.find("variants")
    rates = {"BERT": Rate(2000.0, 4.0), "ELECTRA": Rate(2500.0, 3.0)}
    plan = build(study, "smoke", {"train.steps": 100}, 2, rates)
    steps = {arm.name: arm.steps for arm in plan.arms}
    assert steps["ELECTRA, equal tokens"] == 80 and steps["ELECTRA, equal time"] == 75
    assert not unknown(study, plan)
    early = build(study, "smoke", {"train.steps": 100}, 2, {"BERT": rates["BERT"]})
    assert [arm.name for arm in unknown(study, early)] == [
        "ELECTRA, equal tokens", "ELECTRA, equal time",
    ]  # fmt: skip
    with pytest.raises(UserError, match="steps.ELECTRA, equal time=75, and now it is 100"):
        check_same(plan, early, Path("x"))


def test_a_recipe_that_changed_is_another_study():
    """What stands in a preset too, for runs that are added later."""
    plan = build(studies.find("corruption"), "smoke", {}, 2, {})
    cells = json.loads(json.dumps(plan.asked))
    cells["cells"]["80/10/10, 15%"]["optimizer"]["beta2"] = 0.5
    with pytest.raises(UserError, match="optimizer.beta2=0.5, and now it is 0.98"):
        check_same(replace(plan, asked=cells), plan, Path("x"))


def test_settings_of_the_command_line_are_typed():
    scale = studies.find("masking_rate").scales["smoke"]
    like = preset(studies.find("masking_rate"), scale)
    words = ["--config.train.steps=7", "--config.data.packing=true", "--config.corpus.alpha=0.3"]
    assert overrides(words, like) == {
        "train.steps": 7, "data.packing": True, "corpus.alpha": 0.3,
    }  # fmt: skip
    for word, said in (
        ("--config.train.step=7", "did you mean train.steps"),
        ("--config.train.steps=x", "must be of type int"),
        ("steps=7", "not expected here"),
    ):
        with pytest.raises(ValueError, match=said):
            overrides([word], like)


@pytest.mark.parametrize(
    "written, expected",
    [
        ({"step": 3, "epoch": 1, "scores": {"matthews": 0.2, "accuracy": 0.7}}, 0.2),
        (
            {
                "scores": {"matthews": {"median": 0.3}},
                "seeds": [{"scores": {"matthews": value}} for value in (0.1, 0.3, 0.4)],
            },
            0.3,
        ),
    ],
)
def test_the_score_of_a_task_is_its_first(tmp_path, written, expected):
    """As bert_jax.finetune writes it, of one seed or of several."""
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(written))
    assert task_score(path) == ("matthews", expected)


@pytest.mark.parametrize("written", ["[]", "{", '{"scores": {}}', '{"seeds": []}', '{"scores": 1}'])
def test_scores_that_cannot_be_read_are_named(tmp_path, written):
    path = tmp_path / "scores.json"
    path.write_text(written)
    with pytest.raises(UserError, match="scores.json: .* delete it and start the study again"):
        task_score(path)
