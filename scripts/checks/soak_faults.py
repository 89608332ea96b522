"""Tests full and read-only disks, damaged files and locks (scripts/checks/soak --faults)."""
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import time

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TRAIN = ["train", "run.toml", "--out", "run", "--resume"]
DISK_KIB = 64 * 1024


class Wrong(Exception):
    pass


class Skipped(Exception):
    pass


def expect(condition, what, text=""):
    if not condition:
        raise Wrong(what + (":\n" + text if text else ""))


def results(cwd):
    """The files of a finished run that must be equal to the byte."""
    run = cwd / "run"
    last = max((run / "checkpoints").glob("step-*.safetensors"))
    return {p.name: p.read_bytes() for p in (run / "metrics.jsonl", run / "trained.safetensors", run / "result.json", last)}


def tree(folder, skip=(".lock",)):
    """The bytes of each file by its name, which holds no part in `skip`."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: content for name, content in found.items() if not any(part in name for part in skip)}


def flip(path, at, bit):
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def leftovers(folder):
    return [str(p) for p in folder.rglob("*.tmp.*")]


class Faults:
    def __init__(self, program, folder, config, data):
        self.program, self.folder, self.config, self.data = program, folder, config, data
        self.random = random.Random(1)
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.run_data_make(folder, "data")
        self.whole = self.place("whole")
        self.train(self.whole)
        self.reference = results(self.whole)

    # --- helpers

    def burrow(self, arguments, cwd):
        done = subprocess.run([self.program, *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True)
        return done.returncode, (done.stdout + done.stderr).decode(errors="replace")

    def run_data_make(self, cwd, name):
        code, text = self.burrow(["data", "make", name, *self.data], cwd)
        expect(code == 0, "data make", text)

    def place(self, name):
        cwd = self.folder / name
        cwd.mkdir(exist_ok=True)
        (cwd / "run.toml").write_text(self.config)
        return cwd

    def train(self, cwd):
        """Trains to the end; returns the output."""
        code, text = self.burrow(TRAIN, cwd)
        expect(code == 0, f"training in {cwd} ended with {code}", text)
        return text

    def same(self, cwd, what):
        mine = results(cwd)
        bad = [name for name in self.reference if mine.get(name) != self.reference[name]]
        expect(not bad, f"{what}: differs from the undisturbed run: {bad}")
        expect(not leftovers(cwd / "run"), f"{what}: left {leftovers(cwd / 'run')}")

    def killed(self, cwd, checkpoints):
        """Kills a run once it has this number of checkpoints; returns its pid."""
        for _ in range(20):
            shutil.rmtree(cwd / "run", ignore_errors=True)
            child = subprocess.Popen([self.program, *TRAIN], cwd=cwd, env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL)
            while child.poll() is None:
                if len(list(cwd.glob("run/checkpoints/step-*.safetensors"))) >= checkpoints:
                    child.kill()
                    child.wait()
                    break
            if not (cwd / "run/trained.safetensors").exists():
                return child.pid
        raise Wrong("no run could be killed before its end")

    # --- disks

    def mounted(self):
        """A folder on a small empty disk."""
        if os.geteuid() != 0:
            raise Skipped("needs root, to mount a tmpfs")
        self.unmount()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "burrow-soak", self.disk],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise Skipped("no tmpfs can be mounted: " + done.stderr.strip())
        return self.place("disk")

    def unmount(self):
        if self.disk.is_mount():
            subprocess.run(["umount", self.disk], check=True)

    def free(self):
        status = os.statvfs(self.disk)
        return status.f_bavail * status.f_frsize

    def fill(self, room):
        (self.disk / "filler").write_bytes(b"")
        with open(self.disk / "filler", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, max(4096, self.free() - room))

    def complaint(self, code, text, reason):
        """The file that the error names."""
        expect(code == 1, f"exit code {code} and not 1", text)
        last = text.strip().splitlines()[-1]
        expect(reason in last, f"no '{reason}'", text)
        named = re.search(r"[\w./-]*(?:run|made|features)/[\w./-]+|[\w.-]*/lock|\brun\b|\bmade\b", last)
        expect(named, "no file is named", text)
        return re.sub(r"\d{3,}|[0-9a-f]{16}", "N", named.group(0))

    def sweep(self, command, prepare, check, shares):
        """Runs the command with each share of the space it needs, then again with enough."""
        cwd = self.mounted()
        prepare(cwd)
        before = self.free()
        code, text = self.burrow(command, cwd)
        expect(code == 0, "with enough space", text)
        used = before - self.free()
        named = []
        for share in shares:
            cwd = self.mounted()
            prepare(cwd)
            self.fill(int(used * share))
            code, text = self.burrow(command, cwd)
            if code != 0:
                named.append(self.complaint(code, text, "No space left on device"))
            (cwd / "filler").unlink()
            code, text = self.burrow(command, cwd)
            expect(code == 0, f"with enough space, after {share:.2f} of it", text)
            check(cwd, f"after a disk with {share:.2f} of the space")
        expect(named, "the disk was never full")
        return f"{len(named)} refusals, of " + ", ".join(sorted(set(named)))

    # --- the checks; the docstring of each is its printed name

    def full_disk_train(self):
        """a full disk while training, from the config to the result"""
        return self.sweep(TRAIN, lambda cwd: None, self.same, [i / 16 for i in range(16)])

    def full_disk_checkpoints(self):
        """a full disk while checkpoints are written, with cached features"""
        cache = lambda cwd: shutil.copytree(self.whole / "features", cwd / "features")  # noqa: E731
        return self.sweep(TRAIN, cache, self.same, [i / 12 for i in range(1, 12)])

    def full_disk_features(self):
        """a full disk while features are cached"""
        def check(cwd, what):
            for path in (self.whole / "features").glob("features-*"):
                expect((cwd / "features" / path.name).read_bytes() == path.read_bytes(), f"{what}: {path.name} differs")
        return self.sweep(["features", "run.toml"], lambda cwd: None, check, [i / 6 for i in range(6)])

    def full_disk_data(self):
        """a full disk while data is made"""
        def check(cwd, what):
            expect(tree(cwd / "made") == tree(self.folder / "data"), f"{what}: the data differs")
        return self.sweep(["data", "make", "made", *self.data], lambda cwd: None, check, [i / 10 for i in range(10)])

    def full_disk_messages(self):
        """a full disk that receives the messages too"""
        cwd = self.mounted()
        self.fill(0)
        with open(cwd / "out.txt", "wb") as out:
            code = subprocess.run([self.program, *TRAIN], cwd=cwd, env=ENVIRONMENT, stdout=out, stderr=out).returncode
        expect(code == 1, f"exit code {code}, not 1: it must not abort")

    def read_only(self):
        """a disk that turns read-only"""
        cwd = self.mounted()
        self.killed(cwd, 1)
        subprocess.run(["mount", "-o", "remount,ro", self.disk], check=True)
        code, text = self.burrow(TRAIN, cwd)
        subprocess.run(["mount", "-o", "remount,rw", self.disk], check=True)
        named = self.complaint(code, text, "Read-only file system")
        self.train(cwd)
        self.same(cwd, "after a read-only disk")
        return f"refused, of {named}"

    def damaged_checkpoint(self, damage, what):
        cwd = self.place("damage")
        if not (self.folder / "stopped").exists():
            self.killed(cwd, 2)
            shutil.copytree(cwd / "run", self.folder / "stopped")
        shutil.rmtree(cwd / "run")
        shutil.copytree(self.folder / "stopped", cwd / "run")
        last = max((cwd / "run/checkpoints").glob("step-*.safetensors"))
        damage(last)
        text = self.train(cwd)
        expect(last.name in text and "trying the checkpoint before it" in text, f"{what}: no message", text)
        expect("continuing at step" in text, f"{what}: it did not continue from the previous one", text)
        self.same(cwd, what)

    def flipped_checkpoint(self):
        """a flipped bit in the last checkpoint"""
        places = 40
        for i in range(places):
            def damage(path, i=i):
                size = path.stat().st_size
                header = int.from_bytes(path.read_bytes()[:8], "little")
                # Half of them in the header with its metadata, half in the tensors.
                at = self.random.randrange(8 + header) if i % 2 else self.random.randrange(8 + header, size)
                flip(path, at, self.random.randrange(8))
            self.damaged_checkpoint(damage, f"flip {i}")
        return f"{places} flips, all refused and named"

    def short_checkpoint(self):
        """a last checkpoint that was cut short"""
        shares = (0, 0.0001, 0.3, 0.999)
        for share in shares:
            self.damaged_checkpoint(lambda p, s=share: os.truncate(p, int(p.stat().st_size * s)), f"cut to {share}")
        return f"{len(shares)} lengths, all refused and named"

    def flipped_features(self):
        """a flipped bit in cached features"""
        cwd = self.place("cache")
        for i in range(4):
            shutil.rmtree(cwd)
            shutil.copytree(self.whole, cwd)
            shutil.rmtree(cwd / "run")
            path = sorted((cwd / "features").glob("features-*"))[i % 3]
            flip(path, self.random.randrange(path.stat().st_size - 1000, path.stat().st_size) if i else 20, 3)
            text = self.train(cwd)
            expect(path.name in text and "computing the features again" in text, "no message", text)
            expect(path.read_bytes() == (self.whole / "features" / path.name).read_bytes(), "the cache is not repaired")
            self.same(cwd, "after damaged features")

    def flipped_trained(self):
        """a flipped bit in trained.safetensors"""
        cwd = self.place("trained")
        shutil.copytree(self.whole / "run", cwd / "run")
        path = cwd / "run/trained.safetensors"
        flip(path, path.stat().st_size - 9, 2)
        for command in (["eval", "run"], ["ask", "run", "repeat A 1"]):
            code, text = self.burrow(command, cwd)
            expect(code == 1 and "trained.safetensors" in text and "damaged" in text, "the damaged file was used", text)

    def locked(self):
        """two processes in one run directory, and the lock of a killed one"""
        cwd = self.place("locked")
        first = subprocess.Popen([self.program, *TRAIN], cwd=cwd, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        while not ((cwd / "run/lock").exists() and (cwd / "run/lock").read_text()):
            time.sleep(0.001)
        first.send_signal(signal.SIGSTOP)
        code, text = self.burrow(TRAIN, cwd)
        expect(code == 1 and f"process {first.pid} " in text, "the second process was not refused with the pid of the first", text)
        first.kill()
        first.wait()
        text = self.train(cwd)
        expect(f"process {first.pid} " in text, "the killed process is not named", text)
        self.same(cwd, "after a stale lock")


def run(program, folder, config, data):
    began = time.time()
    faults = Faults(program, pathlib.Path(folder), config, data)
    counts = {"ok": 0, "skipped": 0, "FAILED": 0}
    for check in (faults.full_disk_train, faults.full_disk_checkpoints, faults.full_disk_features,
                  faults.full_disk_data, faults.full_disk_messages, faults.read_only, faults.flipped_checkpoint,
                  faults.short_checkpoint, faults.flipped_features, faults.flipped_trained, faults.locked):
        outcome = "ok"
        try:
            more = check()
        except (Skipped, Wrong) as stopped:
            outcome, more = "skipped" if isinstance(stopped, Skipped) else "FAILED", stopped
        finally:
            faults.unmount()
        counts[outcome] += 1
        print(f"{outcome:<8} {check.__doc__}" + (f": {more}" if more else ""), flush=True)
    print(f"faults: {counts['ok']} passed, {counts['skipped']} skipped, {counts['FAILED']} failed, {time.time() - began:.0f} s")
    return counts["FAILED"] == 0
