"""Streams that the actors of a cluster answer: in order, by image, and finite whatever dies."""

from __future__ import annotations

import os
import sys
import threading
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adafv import errors
from adafv.errors import CheckpointError, DeviceError, InputError, ServerError
from adafv.records import Answer, Question
from adafv.settings import BatchSettings, LoadSettings, RunSettings
from adafv.spreading import actors, cluster, places
from adafv.spreading.blocks import Blocks
from adafv.spreading.cluster import Cluster
from adafv.spreading.settings import ClusterSettings
from adafv.spreading.worker import Fault, Job, Worker
from adafv.streaming.answerer import Suspect
from adafv.streaming.runs import Asked
from tests import batch_fakes
from tests.batch_fakes import FakeBatchModel, asking, questions
from tests.cli_fakes import Result, engine_with, picture
from tests.cli_fakes import adafv as run_adafv
from tests.fake_ray import FakeRay

RUN = RunSettings()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeBatchModel:
    return batch_fakes.install(monkeypatch)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    found = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", found)  # type: ignore[arg-type]
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return found


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    return [picture(tmp_path / f"{number}.png") for number in range(4)]


def asked(images: list[str], count: int, strikes: int = 0) -> Iterator[Asked]:
    """Questions that go through the images again and again."""
    for number in range(count):
        yield Asked(Question(number, images[number % len(images)], f"question {number}"), (RUN,), strikes)


def answered(items: Iterable[Any], *, expected: int | None = None, settings: Any = None) -> list[Answer]:
    chosen = settings or ClusterSettings(actors=2)
    with Cluster(chosen, LoadSettings(), RUN, "/", expected) as found:
        stream = found.sweep(items, [RUN], BatchSettings())
        return [answer for (answer,) in stream]


def ids(answers: list[Answer]) -> list[Any]:
    return [answer.question_id for answer in answers]


def deadly(texts: set[str], times: int = 1_000) -> Any:
    """Whether an actor dies, as often as said, of a block with such a question."""
    deaths: list[str] = []

    def dies(name: str, args: Any) -> bool:
        struck = name == "answer" and any(item.question.text in texts for item in args[0])
        if struck and len(deaths) < times:
            deaths.append(name)
            return True
        return False

    return dies


def test_answers_come_in_order_and_those_that_are_there_stay_in_their_place(
    ray: FakeRay, model: FakeBatchModel, images: list[str]
) -> None:
    refused = Answer("refused", "", None, "demo")
    items = [*asked(images, 20), [refused], *asked(images, 5)]
    found = answered(items)
    assert ids(found) == [*range(20), "refused", *range(5)]
    assert all(answer.text == f"re: {answer.prompt}" for answer in found if answer is not refused and answer.prompt)
    assert ray.options["max_restarts"] == ray.options["max_task_retries"] == 0
    assert ray.started == len(ray.killed) == 2  # none is left behind


def test_questions_about_an_image_are_one_blocks(images: list[str]) -> None:
    blocks = Blocks(asked(images, 40))
    while not blocks._ended:
        pass
    taken = []
    while (block := blocks.take(12)) is not None:
        taken.append(block)
    assert sorted(number for block in taken for number in block.numbers) == list(range(40))
    shown = [{item.question.image for item in block.items} for block in taken]
    assert [len(one) for one in shown] == [2, 2] and not shown[0] & shown[1]


def test_reading_ahead_is_bounded(images: list[str]) -> None:
    read: list[int] = []

    def items() -> Iterator[Asked]:
        for number, item in enumerate(asked(images, 1_000)):
            read.append(number)
            yield item

    blocks = Blocks(items(), ahead=10)
    for number in range(100):
        while number not in blocks._answers:
            block = blocks.take(1)
            for one in block.numbers if block is not None else ():
                blocks.answer(one, [])
        assert blocks.pop() == [] and len(read) <= number + 12
    blocks.close()


def test_an_actor_that_dies_once_costs_nothing(ray: FakeRay, model: FakeBatchModel, images: list[str]) -> None:
    ray.dies = deadly({"question 3", "question 4"}, times=1)
    found = answered(asked(images, 12))
    assert ids(found) == list(range(12)) and not any(answer.error for answer in found)
    assert ray.started == 3


@pytest.mark.parametrize("count,poison", [(1, {3}), (12, {3}), (12, {3, 7, 11}), (12, {0, 1, 2, 4, 5, 8})])
def test_a_question_that_kills_ends_as_an_error_and_spoils_no_other(
    ray: FakeRay, model: FakeBatchModel, images: list[str], count: int, poison: set[int]
) -> None:
    ray.dies = deadly({f"question {number}" for number in poison} | ({"question 0"} if count == 1 else set()))
    found = answered(asked(images, count), settings=ClusterSettings(actors=1))
    assert ids(found) == list(range(count))
    failed = {answer.question_id: answer.error for answer in found if answer.error is not None}
    assert set(failed) == (poison if count > 1 else {0})
    assert all(error is not None and error.type == "PoisonError" for error in failed.values())
    assert ray.started <= 1 + 2 + 2 * len(poison)


def test_a_suspect_is_asked_alone_and_a_poison_not_at_all(
    ray: FakeRay, model: FakeBatchModel, images: list[str]
) -> None:
    blocks: list[int] = []

    def dies(name: str, args: Any) -> bool:
        blocks.extend([len(args[0])] if name == "answer" else [])
        return False

    ray.dies = dies
    found = answered([*asked(images, 4), *asked(images, 2, strikes=1), *asked(images, 2, strikes=2)], expected=1)
    assert ids(found) == [0, 1, 2, 3, 0, 1, 0, 1]
    assert [answer.error is not None for answer in found] == [False] * 6 + [True] * 2
    assert set(blocks) == {1} and len(model.asked) == 6


def test_while_a_suspect_is_asked_no_actor_is_at_anything_else(
    ray: FakeRay, model: FakeBatchModel, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy: list[list[int]] = []  # strikes of the questions that the actors are at
    give = actors.Actors.give

    def spy(self: actors.Actors, block: Any, *more: Any) -> None:
        give(self, block, *more)
        busy.append([item.strikes for place in self._places if place.block is not None for item in place.block.items])

    monkeypatch.setattr(actors.Actors, "give", spy)
    monkeypatch.setattr(ray, "wait", lambda refs, num_returns, timeout: (refs, []))
    found = answered([*asked(images, 16), *asked(images, 3, strikes=1), *asked(images, 1)], expected=1)
    assert len(found) == 20 and max(len(at) for at in busy) > 1  # two actors, but for the suspects
    assert [at for at in busy if any(at)] == [[1]] * 3


def test_what_keeps_an_actor_from_beginning_is_the_runs_error(
    ray: FakeRay, model: FakeBatchModel, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sweep(*args: Any) -> Any:
        raise InputError("encodings: /gone cannot be written to", "give the path of a folder")

    monkeypatch.setattr(FakeBatchModel, "sweep", sweep)
    with pytest.raises(InputError, match="/gone cannot be written to"):
        answered(asked(images, 4))
    assert ray.started == 2  # nobody has died of it


def test_the_servers_key_goes_with_the_actors(
    ray: FakeRay, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str | None] = []

    def load(settings: LoadSettings) -> FakeBatchModel:
        keys.append(os.environ.get("ADAFV_SERVER_KEY"))
        return model

    def put(job: Any) -> Any:
        monkeypatch.delenv("ADAFV_SERVER_KEY")  # another machine's environment is another one
        assert "secret" not in repr(job)
        return job

    monkeypatch.setitem(sys.modules, "adafv.engine", engine_with(load))
    monkeypatch.setattr(ray, "put", put)
    monkeypatch.setenv("ADAFV_SERVER_KEY", "secret")
    Cluster(ClusterSettings(actors=1), LoadSettings(), RUN, "/").close()
    assert keys == ["secret"]


def test_actors_that_only_die_end_the_run(ray: FakeRay, model: FakeBatchModel, images: list[str]) -> None:
    ray.dies = lambda name, args: name == "load"
    with pytest.raises(DeviceError, match="no actor is left: 3 died one after the other while they loaded: the actor"):
        answered(asked(images, 4), settings=ClusterSettings(actors=2))
    assert ray.started == len(ray.killed) == 6
    ray.dies = lambda name, args: name == "answer"
    with pytest.raises(DeviceError, match="died of 8 questions one after the other, and none was answered in between"):
        answered(asked(images, 400), settings=ClusterSettings(actors=1))
    assert len(ray.killed) == ray.started == 6 + 1 + 2 + 2 * 8  # none is left behind


def test_an_actor_that_dies_while_it_loads_is_left_out(ray: FakeRay, model: FakeBatchModel, images: list[str]) -> None:
    deaths: list[str] = []
    ray.dies = lambda name, args: name == "load" and len(deaths) < 3 and not deaths.append(name)
    warned: list[str] = []
    with Cluster(ClusterSettings(actors=2), LoadSettings(), RUN, "/", None, warned.append) as found:
        found_ids = [answer.question_id for (answer,) in found.sweep(asked(images, 40), [RUN])]
    assert found_ids == list(range(40)) and len(ray.killed) == ray.started
    assert len(warned) == 1 and "an actor is left out, 1 go on: 3 died while they loaded" in warned[0]


def test_a_stream_that_was_stopped_leaves_the_cluster_as_it_was(
    ray: FakeRay, model: FakeBatchModel, images: list[str]
) -> None:
    stop = threading.Event()
    with Cluster(ClusterSettings(actors=2), LoadSettings(), RUN, "/") as found:
        stream = found.sweep(asked(images, 100), [RUN], BatchSettings(), stop)
        next(stream)
        stop.set()
        list(stream)
        early = found.sweep(asked(images, 100), [RUN])  # left while actors are at its blocks
        next(early)
        early.close()
        again = found.sweep((replace_text(one) for one in asked(images, 50)), [RUN])
        texts = [answer.text for (answer,) in again]
    assert texts == [f"re: again {number}" for number in range(50)]


def test_a_halt_is_for_its_stream_alone_and_may_come_first(model: FakeBatchModel, images: list[str]) -> None:
    worker = Worker(Job("/", LoadSettings(), RUN))
    worker.load()
    worker.halt(0)
    assert not worker.answer([*asked(images, 3)], [RUN], BatchSettings(), 0).answers
    assert len(worker.answer([*asked(images, 3)], [RUN], BatchSettings(), 1).answers) == 3


def replace_text(item: Asked) -> Asked:
    question = item.question
    return Asked(Question(question.question_id, question.image, f"again {question.question_id}"), item.runs)


def test_actors_without_room_end_the_run_and_fewer_do_the_work(
    ray: FakeRay, model: FakeBatchModel, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.room = 1
    assert ids(answered(asked(images, 12), settings=ClusterSettings(actors=3))) == list(range(12))
    ray.room = 0
    monkeypatch.setattr(actors, "START_S", 0.0)
    with pytest.raises(DeviceError, match=r"no actor has got a model within .* the cluster has 1 CPUs and 0 GPUs"):
        answered(asked(images, 4))


@pytest.mark.parametrize(
    "held,settings,count,gpus",
    [
        ([{"CPU": 1.0}] * 3, {}, 3, 0.0),
        ([{"GPU": 8.0}, {"GPU": 4.0}, {"CPU": 2.0}], {}, 12, 1.0),
        ([{"GPU": 2.0}], {"gpus_per_actor": 0.5}, 4, 0.5),
        ([{"GPU": 3.0}, {"GPU": 3.0}], {"gpus_per_actor": 2.0}, 2, 2.0),
        ([{"GPU": 2.0}], {"actors": 1, "gpus_per_actor": 0.0}, 1, 0.0),
    ],
)
def test_as_many_actors_as_there_are_gpus(
    ray: FakeRay, model: FakeBatchModel, held: Any, settings: dict[str, Any], count: int, gpus: float
) -> None:
    ray.held = held
    with Cluster(ClusterSettings(**settings), LoadSettings(), RUN, "/") as found:
        assert (found.count, ray.started, ray.options["num_gpus"]) == (count, count, gpus)


def test_more_gpus_than_a_node_has_are_refused(ray: FakeRay, model: FakeBatchModel) -> None:
    ray.held = [{"GPU": 1.0}, {"GPU": 1.0}]
    with pytest.raises(DeviceError, match="no node has as many, the largest has 1"):
        Cluster(ClusterSettings(gpus_per_actor=2.0), LoadSettings(), RUN, "/")


@pytest.mark.parametrize(
    "bad",
    [
        {"actors": 0},
        {"gpus_per_actor": 1.5},
        {"gpus_per_actor": -1.0},
        {"gpus_per_actor": 1e-5},
        {"address": "ray://a:1"},
    ],
)
def test_settings_that_are_none(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ClusterSettings(**bad)


def test_a_checkpoint_that_a_node_does_not_have(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(settings: LoadSettings) -> Any:
        raise CheckpointError("model /here/llava does not exist", "check the path")

    monkeypatch.setitem(sys.modules, "adafv.engine", engine_with(load))
    with pytest.raises(CheckpointError) as raised:
        Cluster(ClusterSettings(), LoadSettings(), RUN, "/")
    assert raised.value.what.startswith("on node ") and "at the same path on every node" in raised.value.fix


def test_a_node_that_cannot_load_is_left_out_as_long_as_others_can(
    ray: FakeRay, model: FakeBatchModel, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    def load(settings: LoadSettings) -> FakeBatchModel:
        loads.append(settings.model)
        if len(loads) == 1:
            raise CheckpointError("model /here/llava does not exist", "check the path")
        return model

    monkeypatch.setitem(sys.modules, "adafv.engine", engine_with(load))
    warned: list[str] = []
    with Cluster(ClusterSettings(actors=2), LoadSettings(), RUN, "/", None, warned.append) as found:
        assert len([*found.sweep(asked(images, 12), [RUN])]) == 12
    (said,) = warned
    assert "left out, 1 go on: on node " in said and "/here/llava does not exist" in said and "every node" in said


@pytest.mark.parametrize("name", ["AdaFVError", "InputError", "ServerError", "InternalError", "PoisonError"])
def test_errors_survive_the_way_from_an_actor(name: str) -> None:
    error = getattr(errors, name)("what", "fix")
    again = Fault.of(error).error()
    assert (type(again), again.what, again.fix) == (type(error), "what", "fix")


def test_a_server_that_dies_ends_the_run_and_names_its_suspects(
    ray: FakeRay, model: FakeBatchModel, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dies(batch_fakes.FakeAnswers):
        @property
        def suspects(self) -> list[Suspect]:
            return [Suspect(Question(2, images[2], "question 2"), RUN, 1)]

        def _one(self, item: Question, run: RunSettings) -> Answer:
            if item.text == "question 2":
                raise ServerError("the server is gone", "start it again", 1)
            return super()._one(item, run)

    monkeypatch.setattr(batch_fakes, "FakeAnswers", Dies)
    found: list[Answer] = []
    with Cluster(ClusterSettings(actors=1), LoadSettings(), RUN, "/") as spread:
        stream = spread.sweep(asked(images[:3], 3), [RUN], BatchSettings())
        with pytest.raises(ServerError, match="the server is gone"):
            found += [answer for (answer,) in stream]
        assert [one.question.question_id for one in stream.suspects] == [2]


def batch(folder: Path, *more: str) -> Result:
    source = folder / "questions.jsonl"
    return run_adafv("batch", str(source), "-o", str(folder / "out.jsonl"), "--engine", "ray", *more)


def test_the_command_writes_what_one_process_writes(tmp_path: Path, ray: FakeRay, model: FakeBatchModel) -> None:
    path = questions(tmp_path, *(asking(number, ("a.png", "b.png", "gone.png")[number % 3]) for number in range(30)))
    alone = tmp_path / "alone.jsonl"
    assert run_adafv("batch", path, "-o", str(alone)).code == 1
    ray.dies = deadly({"question 6"}, times=1)
    assert batch(tmp_path, "--actors", "3").code == 1
    assert (tmp_path / "out.jsonl").read_bytes() == alone.read_bytes()
    settings = ".jsonl.settings.json"
    assert (tmp_path / f"out{settings}").read_bytes() == (tmp_path / f"alone{settings}").read_bytes()
    picture(tmp_path / "gone.png")
    model.asked.clear()
    assert batch(tmp_path, "--resume").code == 0
    assert sorted(one.question_id for one in model.asked) == list(range(2, 30, 3))


@pytest.mark.parametrize(
    "args,said",
    [
        (["--engine", "vllm"], "for vLLM, give --server URL"),
        (["--actors", "2"], "add --engine ray"),
        (["--address", "head:6379"], "add --engine ray"),
        (["--engine", "ray", "--actors", "0"], "--actors: 0 answer nothing"),
        (["--engine", "ray", "--dry-run", "--probe"], "--probe runs here"),
    ],
)
def test_flags_that_make_no_sense(tmp_path: Path, model: FakeBatchModel, args: list[str], said: str) -> None:
    refused = run_adafv("batch", questions(tmp_path, asking(1)), *args)
    assert refused.code == 2 and said in refused.stderr and not model.loaded


def test_an_address_in_the_environment_asks_for_no_cluster(
    tmp_path: Path, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    picture(tmp_path / "a.png")
    assert run_adafv("batch", questions(tmp_path, asking(1))).code == 0


def test_a_size_of_a_world_without_a_rank_is_no_launcher(
    tmp_path: Path, ray: FakeRay, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "some")
    questions(tmp_path, asking(1))
    assert batch(tmp_path).code == 0


def test_a_launcher_and_a_cluster_are_one_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    questions(tmp_path, asking(1))
    assert "leave torchrun out" in batch(tmp_path).stderr


def test_without_the_extra_the_error_names_it(
    tmp_path: Path, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    questions(tmp_path, asking(1))
    refused = batch(tmp_path)
    assert refused.code == 2 and "pip install 'adafv[ray]'" in refused.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_errors_of_a_setting_name_its_flag_and_leave_the_value(
    tmp_path: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(settings: LoadSettings) -> Any:
        raise InputError("vision_tower: 'my_tower' is not needed", "leave it out")

    monkeypatch.setitem(sys.modules, "adafv.engine", engine_with(load))
    questions(tmp_path, asking(1))
    refused = batch(tmp_path)
    assert refused.code == 2 and "--vision-tower: 'my_tower' is not needed" in refused.stderr


def test_no_cluster_at_an_address_is_said_at_once(tmp_path: Path, ray: FakeRay, model: FakeBatchModel) -> None:
    questions(tmp_path, asking(1))
    refused = batch(tmp_path, "--address", "127.0.0.1:1")
    assert (
        refused.code == 3 and "no Ray cluster at 127.0.0.1:1" in refused.stderr and "ray start --head" in refused.stderr
    )


def test_a_cluster_that_left_its_address_behind_is_said_at_once(
    tmp_path: Path, ray: FakeRay, model: FakeBatchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = types.ModuleType("ray._private.services")
    services.get_ray_address_from_environment = lambda *args: "127.0.0.1:1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, services.__name__, services)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    questions(tmp_path, asking(1))
    refused = batch(tmp_path)
    assert refused.code == 3 and "no Ray cluster at 127.0.0.1:1" in refused.stderr and "`ray stop`" in refused.stderr


@pytest.mark.parametrize(
    "text,is_one",
    [
        ("s3://bucket/a.png", True),
        ("file:///tmp/a.png", True),
        ("https://example.org/a.png", False),
        ("c:/photos/a.png", False),
        ("photos/a.png", False),
        ("a:b", False),
    ],
)
def test_addresses_are_told_from_paths(text: str, is_one: bool) -> None:
    assert places.address_of(text) == (text if is_one else None)


def test_actors_read_images_by_their_addresses(tmp_path: Path, ray: FakeRay, model: FakeBatchModel) -> None:
    address = (tmp_path / "a.png").as_uri()
    questions(tmp_path, asking(0), asking(1, address), asking(2, f"{address}.gone"), asking(3, "nowhere://a/b.png"))
    done = batch(tmp_path)
    assert done.code == 1 and "missing" not in done.stderr
    found = batch_fakes.answers((tmp_path / "out.jsonl").read_text())
    assert [line["error"] is None for line in found] == [True, True, False, False]
    assert found[1]["image"] == {"name": address, "key": found[0]["image"]["key"]}
    assert all(line["error"]["type"] == "ImageError" and address[:8] in line["error"]["message"] for line in found[2:3])


def test_a_dry_run_for_a_cluster_reads_addresses_too(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    address = (tmp_path / "a.png").as_uri()
    questions(tmp_path, asking(0), asking(1, address), asking(2, f"{address}.gone"))
    done = batch(tmp_path, "--dry-run")
    (found,) = batch_fakes.answers(done.stdout)
    assert (done.code, found["questions"], found["failed"]) == (1, 2, 1), done.stderr
    (alone,) = batch_fakes.answers(run_adafv("batch", str(tmp_path / "questions.jsonl"), "--dry-run").stdout)
    assert (alone["questions"], alone["failed"]) == (1, 2)  # as this process could not read them either
