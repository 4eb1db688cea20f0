"""Processes whose host's clock is wrong: the time of day alone, which a test can set while they run."""

import functools
import mmap
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *shift;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void set_up(void) {
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("CLOCK_SHIFT_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *memory = mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    shift = memory == MAP_FAILED ? 0 : memory;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *moment) {
    if (!real_clock_gettime)
        set_up();
    int result = real_clock_gettime(clock, moment);
    if (!result && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI))
        moment->tv_sec += *shift;
    return result;
}

int gettimeofday(struct timeval *restrict moment, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    moment->tv_sec = now.tv_sec;
    moment->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *moment) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (moment)
        *moment = now.tv_sec;
    return now.tv_sec;
}
"""


def has_compiler() -> bool:
    return shutil.which("gcc") is not None


@functools.cache
def _library() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="jobsvc-clocks-"))
    (folder / "shift.c").write_text(SOURCE)
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(folder / "shift.so"), str(folder / "shift.c"), "-ldl"]
    subprocess.run(command, check=True)
    return folder / "shift.so"


class HostClock:
    """The clock of a host of its own, `seconds` ahead, for the processes started with its `env`."""

    def __init__(self, seconds: int) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="jobsvc-clock-")  # noqa: SIM115
        self._file.write(bytes(mmap.PAGESIZE))
        self._file.flush()
        self._shift = mmap.mmap(self._file.fileno(), mmap.PAGESIZE)
        self.set(seconds)
        self.env = {"LD_PRELOAD": str(_library()), "CLOCK_SHIFT_FILE": self._file.name}

    def set(self, seconds: int) -> None:
        """Set it to so many seconds ahead, for processes that run as well."""
        self._shift[:8] = seconds.to_bytes(8, "little", signed=True)

    def close(self) -> None:
        self._shift.close()
        self._file.close()
