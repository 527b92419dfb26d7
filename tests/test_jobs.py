"""Tables of jobs: read strictly, split completely, run to the end."""

from dataclasses import replace

import pytest

from stillspeak.animate import Animator
from stillspeak.batch import BatchJob, read_jobs, run_jobs, shard
from stillspeak.errors import ConfigError, InputError, NoFaceError
from stillspeak.options import AnimateOptions
from support.animate import (
    RATE,
    lively,
    portrait,
    speech,
    use_shared_detector,
    write_picture,
    write_wav,
)


def table(folder, text, encoding="utf-8"):
    path = folder / "jobs.csv"
    path.write_bytes(text.encode(encoding))
    return path


# --- reading ------------------------------------------------------------------------------------


def test_paths_are_relative_to_the_table_and_options_are_numbers(tmp_path):
    path = table(
        tmp_path,
        "photo,speech,output,seed,size\na.jpg,b.wav,out/c.mp4,7,\n/abs/a.jpg, b.wav ,d.mp4,,256\n",
    )
    assert read_jobs(path) == [
        BatchJob(2, tmp_path / "a.jpg", tmp_path / "b.wav", tmp_path / "out/c.mp4", {"seed": 7}),
        BatchJob(
            *(3, type(tmp_path)("/abs/a.jpg"), tmp_path / "b.wav", tmp_path / "d.mp4"),
            {"size": 256},
        ),
    ]


def test_columns_come_in_any_order_and_with_a_byte_order_mark(tmp_path):
    path = table(tmp_path, "face,output,speech,photo\r\n2,c.mp4,b.wav,ä.jpg\r\n", "utf-8-sig")
    (job,) = read_jobs(path)
    assert (job.photo.name, job.speech.name, job.output.name) == ("ä.jpg", "b.wav", "c.mp4")
    assert job.options == {"face": 2}


def test_several_faces_and_their_speeches(tmp_path):
    path = table(
        tmp_path,
        "photo,speech,output,face,speech_for\n"
        'a.jpg,b.wav,c.mp4,"2,0",\na.jpg,b.wav,d.mp4,1;0;3,0=x.wav;3=y.wav\na,b,e.mp4,,\n',
    )
    first, second, third = read_jobs(path)
    assert (first.options, first.others) == ({"face": 2}, {0: None})
    assert second.options == {"face": 1}
    assert second.others == {0: tmp_path / "x.wav", 3: tmp_path / "y.wav"}
    assert (third.options, third.others) == ({}, {})
    animator = Recorder()
    run_jobs(animator, [second])
    assert animator.others == second.others


def test_lines_are_numbered_as_in_the_file(tmp_path):
    path = table(tmp_path, 'photo,speech,output\n\na,b,1.mp4\n\n\n"a\nb",b,2.mp4\na,b,3.mp4\n')
    assert [job.line for job in read_jobs(path)] == [3, 7, 8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs the columns photo, speech, output .* found none$"),
        ("photo,speech\na,b\n", "needs the columns .* found photo, speech$"),
        ("photo,speech,output,sed\na,b,c,1\n", "needs the columns .* found .*, sed$"),
        ("photo,speech,output\n", "holds no jobs"),
        ("photo,speech,output\na,b,c,d\n", "line 2: has more cells than columns"),
        ("photo,speech,output\na,b\n", "line 2: photo, speech and output must all be given"),
        ("photo,speech,output\na, ,c\n", "line 2: photo, speech and output must all be given"),
        ("photo,speech,output,seed\na,b,c,1.5\n", "line 2: seed must be a whole number, not '1.5'"),
        ("photo,speech,output,face\na,b,c,x\n", "line 2: face must be a whole number, not 'x'"),
        ("photo,speech,output,face\na,b,c,0;0\n", "line 2: face 0 is named twice"),
        ("photo,speech,output,speech_for\na,b,c,1=d\n", "line 2: speech-for '1=d': face 1 is not"),
        ("photo,speech,output\na,b,c\nd,e,c\n", r"line 3: writes .*c, as line 2 does"),
        ("photo,speech,output\na,b,c\nd,e,./x/../c\n", r"line 3: writes .*c, as line 2 does"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path, text, message):
    path = table(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_jobs(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_table_that_is_no_text_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"^\S+ cannot be read as a CSV table \(no such file"):
        read_jobs(tmp_path / "missing.csv")
    with pytest.raises(InputError, match=r"cannot be read as a CSV table \(is a directory\)"):
        read_jobs(tmp_path)
    path = tmp_path / "binary.csv"
    path.write_bytes(b"\xff\xd8\xff\xe0 a picture")
    with pytest.raises(InputError, match="cannot be read as a CSV table"):
        read_jobs(path)


# --- shards -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 11])
def test_shards_cover_all_jobs_exactly_once(tmp_path, count):
    jobs = [BatchJob(n, tmp_path, tmp_path, tmp_path / str(n)) for n in range(10)]
    parts = [shard(jobs, f"{index}/{count}") for index in range(1, count + 1)]
    assert sorted(job.line for part in parts for job in part) == list(range(10))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "a/b", "1/2/3", "1 / 2"])
def test_a_wrong_shard_is_refused(text):
    with pytest.raises(ConfigError, match="is not of the form i/n with i from 1 to n"):
        shard([], text)


# --- running ------------------------------------------------------------------------------------


class Recorder:
    """Stands for an Animator: notes what it is asked for and writes a stub."""

    warnings = ()

    def __init__(self, failing=()):
        self.asked = []
        self.failing = failing

    def animate(self, photo, speech, options, others):
        if photo.name in self.failing:
            raise self.failing[photo.name]
        self.asked.append((photo.name, options))
        self.others = others
        return self

    def lost_in(self, path):
        return ()

    def save(self, path, *, overwrite, **marks):
        path.write_text(f"overwrite={overwrite}")
        return 5


def jobs_in(folder, *options):
    return [
        BatchJob(n, folder / f"p{n}", folder / "speech", folder / f"{n}.mp4", given)
        for n, given in enumerate(options, start=2)
    ]


def test_a_line_s_options_go_before_the_command_s(tmp_path):
    animator = Recorder()
    jobs = jobs_in(tmp_path, {}, {"seed": 0, "face": 0}, {"size": 99, "crop": False})
    given = AnimateOptions(seed=1, face=2, size=300, crop=True, blink=2.0, head_motion=0.5)
    run_jobs(animator, jobs, given)
    assert [options for _, options in animator.asked] == [
        given,
        replace(given, seed=0, face=0),
        replace(given, size=99, crop=False),
    ]


def test_failures_are_noted_and_the_others_made(tmp_path):
    animator = Recorder(
        {"p3": NoFaceError("p3: no face"), "p4": OSError(36, "File name too long", "p4")}
    )
    seen = []
    results = run_jobs(
        animator,
        jobs_in(tmp_path, {}, {}, {}, {}),
        progress=lambda done, result: seen.append((done, result)),
    )
    assert [result.error for result in results] == [
        None,
        "p3: no face",
        "p4: file name too long",
        None,
    ]
    assert [result.frames for result in results] == [5, 0, 0, 5]
    assert seen == list(enumerate(results, start=1))


def test_programming_mistakes_are_not_swallowed(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_jobs(Recorder({"p2": ZeroDivisionError()}), jobs_in(tmp_path, {}))


@pytest.mark.parametrize(("skip", "asked"), [(True, ["p3"]), (False, ["p2", "p3"])])
def test_existing_outputs_are_skipped_if_wanted(tmp_path, skip, asked):
    (tmp_path / "2.mp4").write_text("there")
    animator = Recorder()
    results = run_jobs(animator, jobs_in(tmp_path, {}, {}), skip_existing=skip, overwrite=True)
    assert [name for name, _ in animator.asked] == asked
    assert [result.skipped for result in results] == [skip, False]
    assert (tmp_path / "2.mp4").read_text() == ("there" if skip else "overwrite=True")


def test_real_jobs(tmp_path, monkeypatch):
    use_shared_detector(monkeypatch)
    write_picture(tmp_path / "p.png", portrait())
    write_wav(tmp_path / "s.wav", speech(0.2), RATE)
    path = table(
        tmp_path,
        "photo,speech,output,size\np.png,s.wav,1.gif,\np.png,s.wav,2.gif,9999\n"
        "p.png,s.wav,1.mp3,\nnone.png,s.wav,3.gif,\n",
    )
    with Animator(lively()) as animator:
        results = run_jobs(animator, read_jobs(path))
        again = run_jobs(animator, read_jobs(path)[:1])
    assert [result.frames for result in results] == [5, 0, 0, 0]
    errors = [result.error or "" for result in [*results[1:], *again]]
    for error, part in zip(
        errors,
        [
            "size: must be at most 4096, not 9999",
            ".mp3 are not written",
            "none.png: no such file",
            "exists",
        ],
        strict=True,
    ):
        assert part in error
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "1.gif", "jobs.csv", "p.png", "s.wav"
    ]  # fmt: skip
