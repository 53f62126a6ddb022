"""scripts/gpu-check's kit on a machine without a GPU: a row whatever happens, and exit statuses and files as tests/gpu/check documents them."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from processes import BUILD

CHECK = Path(__file__).parents[1] / "gpu" / "check"
KIT = BUILD / "gpu-kit"
DEVICE_ROWS = ["self-test", "library", "nvml", "decode-8b", "decode-1b", "kernel-times-1b", "prompts-8b", "mixed-1b", "beside-transformers",
               "tokens of each model", "each kernel beside its reference", "memcheck", "racecheck", "initcheck", "ncu", "through-nginx", "fault"]

# As gpu_check would be on some machine: what each of its commands does.
STAND_IN = """#!/bin/sh
case "$1" in
    kernel-names) echo "embed f32"; echo "score" ;;
{cases}
    *) echo "| $* | done | | yes |" ;;
esac
"""


def kit_of(folder, **commands):
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "small.flat").touch()
    (folder / "version").write_text("some version\n")
    shutil.copy(CHECK, folder)
    program = folder / "gpu_check"
    program.write_text(STAND_IN.format(cases="\n".join(f"    {name}) {command} ;;" for name, command in commands.items())))
    program.chmod(0o755)
    return folder


def run(kit, out, *options, **environment):
    """The exit status, the rows by their names, and the whole table; what is printed is what table.md holds."""
    done = subprocess.run([kit / "check", "--out", out, *options], capture_output=True, text=True, timeout=200,
                          env={**os.environ, **environment})
    table = (out / "table.md").read_text()
    assert done.stdout == table
    rows = {row.split(" | ")[0].lstrip("| "): row for row in table.splitlines() if row.startswith("| ")}
    return done.returncode, rows, table


def test_without_a_device_every_row_says_so_and_what_needs_none_is_checked(tmp_path):
    kit = kit_of(tmp_path / "a kit", device="echo cudaErrorInsufficientDriver >&2; exit 3")
    status, rows, table = run(kit, tmp_path / "out")
    assert status == 3
    for name in DEVICE_ROWS:
        assert "not measured: no device answers: cudaErrorInsufficientDriver" in rows[name], table
    assert "yes" in rows[f"host {kit}/models/small.flat"]


def test_what_fails_has_a_row_with_its_own_last_words(tmp_path):
    kit = kit_of(tmp_path / "kit", device="echo H200, 132 multiprocessors", nvml="echo '| NVML | nothing | all | **NO** |'; exit 1",
                 library="echo 'a | line' >&2; echo cudaErrorLaunchFailure >&2; exit 4", prompts="echo nobody says; exit 1",
                 decode="kill -9 $$", fault="printf '| half a'; exit 1")
    status, rows, table = run(kit, tmp_path / "out")
    assert status == 1
    assert "ended with status 4: a / line cudaErrorLaunchFailure" in rows["library"]
    assert rows["NVML"].endswith("**NO** |") and "nvml" not in rows, "it has said so itself"
    assert "ended with status 1" in rows["prompts-8b"] and "nobody says" not in table
    assert "ended with status 137" in rows["decode-8b"]
    assert "ended with status 1" in rows["fault"] and "half a" not in table
    assert "yes" in rows["kernels large embed f32"] and "yes" in rows["kernels large score"]
    assert (tmp_path / "out" / "library.stderr").read_text() == "a | line\ncudaErrorLaunchFailure\n"
    assert not list((tmp_path / "out").glob("*.status"))


def test_what_the_profiler_and_the_sanitizer_say_has_its_rows(tmp_path):
    kit = kit_of(tmp_path / "kit", device="echo H200")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ncu").write_text('#!/bin/sh\nwhile [ "$1" != --log-file ]; do shift; done\nprintf \'"ID","Metric"\\n"0","a"\\n"1","b"\\n\' >"$2"\n')
    (tools / "compute-sanitizer").write_text('#!/bin/sh\ncase "$2" in initcheck) exit 9 ;; esac\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    status, rows, _ = run(kit, tmp_path / "out", PATH=f"{tools}:{os.environ['PATH']}")
    assert status == 1
    assert "2 lines in ncu.csv" in rows["ncu, launches of decoding 1b"]
    assert "nothing found" in rows["compute-sanitizer racecheck, every kernel on small shapes"] and "ended with status 9" in rows["initcheck"]


def test_what_takes_too_long_is_cut_and_the_others_are_told_of(tmp_path):
    kit = kit_of(tmp_path / "kit", device="echo H200", library="exec sleep 100")
    status, rows, _ = run(kit, tmp_path / "out", "--limit", "2")
    assert status == 1
    assert "out of time" in rows["library"] and "the time was up" in rows["fault"] and "yes" in rows["self-test"]


def test_a_program_that_does_not_start_is_a_row_too(tmp_path):
    kit = kit_of(tmp_path / "kit")
    (kit / "gpu_check").write_text("#!/bin/sh\necho GLIBC_9.9 not found >&2\nexit 1\n")
    status, rows, _ = run(kit, tmp_path / "out")
    assert status == 1 and "does not start: GLIBC_9.9 not found" in rows["gpu_check"]
    assert subprocess.run([kit / "check", "--nothing"], capture_output=True).returncode == 2


@pytest.mark.skipif(not (KIT / "check").exists(), reason="the kit is not made (make test-gpu-kit)")
def test_a_kit_that_was_carried_elsewhere_works_there(tmp_path):
    packed = tmp_path / "kit.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(KIT, "kit")
    assert packed.stat().st_size < 40 << 20 and sum(file.stat().st_size for file in KIT.rglob("*") if file.is_file()) < 40 << 20
    with tarfile.open(packed) as tar:
        tar.extractall(tmp_path / "there")
    kit = tmp_path / "there" / "kit"
    # No compiler, no toolkit, no Nginx of its own.
    bare = {"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "", "LD_LIBRARY_PATH": ""}
    status, rows, table = run(kit, tmp_path / "out", "--host-only", **bare)
    assert status == 0, table
    assert sum("greedy tokens on the CPU, as PyTorch's" in name for name in rows) == len(list((kit / "models").glob("*.flat"))) > 5
    assert "; 0 failed" in next(row for name, row in rows.items() if name.startswith("through Nginx, queue and worker on the CPU"))
    status, rows, table = run(kit, tmp_path / "out", **bare)
    assert status == 3 and all("not measured" in rows[name] for name in DEVICE_ROWS), table
