"""Pages of 16 and 64 KiB, as some machines have them: pages/shim.c gives a process such, on any machine."""

import os
import subprocess
from pathlib import Path

import pytest
from helpers import FREE_THREADED, PRELOADS, SANITIZER, run_ok

SHIM = Path(__file__).parent / "pages" / "shim.c"


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    if not PRELOADS:
        pytest.skip("no shim can be loaded before the C library here")
    if SANITIZER in ("asan", "tsan"):
        pytest.skip("mmap is the sanitizer's own, where the shim would have to stand")
    library = tmp_path_factory.mktemp("pages") / "shim.so"
    subprocess.run(["cc", "-O1", "-w", "-shared", "-fPIC", SHIM, "-o", library, "-ldl"], check=True)
    return library


@pytest.fixture(params=[16384, 65536])
def paged(request, library):
    """run_ok in a process with such pages. It fails if the system would have refused a call for its address."""
    if os.sysconf("SC_PAGESIZE") > request.param:
        pytest.skip("this machine's own pages are larger")

    def run(code):
        end = "\nassert shim.page_refusals() == 0, 'an address within a page'\n"
        start = "import ctypes, os\nshim = ctypes.CDLL(None)\nPAGE = os.sysconf('SC_PAGESIZE')\n"
        start += f"assert PAGE == {request.param}\n"
        lines = code.splitlines()
        return run_ok(start + "\n".join(line[8:] for line in lines) + end,
                      env={"LD_PRELOAD": str(library), "PAGE_BYTES": str(request.param)})  # fmt: skip

    return run


def test_the_shim_is_strict(paged):
    paged("""
        mmap, munmap = shim.mmap, shim.munmap
        mmap.restype = ctypes.c_void_p
        mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_size_t]
        munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        for _ in range(20):
            base = mmap(None, 1, 3, 0x22, -1, 0)
            assert base % PAGE == 0
            ctypes.memset(base, 1, PAGE)    # to the end of the page, whatever was asked for
            assert munmap(base + 4096, 4096) == -1
            assert munmap(base, 1) == 0
        assert shim.page_refusals() == 20
        shim.page_refusals = lambda: 0
    """)


BURSTS = """
        import random, threading, time
        from timerheap import AfterFunc, TimerHeap

        def burst(heap, count):
            '''So many timers, due at different instants, that are one run; and some that are armed while it is
            sorted and fired, so that the keys grow meanwhile.'''
            gate, fired = threading.Event(), []
            AfterFunc(0, gate.wait, 30, heap=heap)
            for _ in range(count):
                AfterFunc(draw.random() * 0.02, fired.append, 1, heap=heap)
            time.sleep(0.03)
            gate.set()
            later = [AfterFunc(3600, print, heap=heap) for _ in range(draw.choice((1, 70, 300)))]
            deadline = time.monotonic() + 30
            while len(fired) < count:
                assert time.monotonic() < deadline, len(fired)
                time.sleep(0.001)
            heap.check()
            return later

        draw = random.Random(1)
        heap = TimerHeap()
"""


def test_bursts_keep_the_keys_and_the_run_apart(paged):
    """The run takes over a tail of the keys' memory: it has to begin on a page of its own."""
    paged(BURSTS + """
        for n in range(30):
            later = burst(heap, 3000)
            assert len(heap) == len(later)
            assert all(timer.stop() for timer in later)
        assert heap.stats()["fired"] == 30 * 3001
        heap.check()
        heap.close()
    """)


def test_bursts_give_back_what_they_mapped(paged):
    paged(BURSTS + """
        def mapped():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[0]) * 4096

        for n in range(40):
            if n == 10:
                before = mapped()
            for timer in burst(heap, 3000):
                timer.stop()
        assert mapped() - before < 20 * PAGE, (before, mapped())
        heap.close()
        del heap
    """)


def test_a_heap_counts_whole_pages(paged):
    """One for the keys, from the first timer on; one for the run, from the first that fires on."""
    paged("""
        from timerheap import AfterFunc
        from timerheap.testing import ManualHeap

        heap = ManualHeap()
        assert heap.nbytes == 0
        timer = AfterFunc(1, int, heap=heap)
        size = heap.nbytes - PAGE
        assert 0 < size < 200, heap.nbytes
        heap.advance(1)
        assert heap.nbytes == 2 * PAGE + size
        timers = [AfterFunc(1, int, heap=heap) for _ in range(PAGE // 16)]
        assert heap.nbytes == 3 * PAGE + size * (len(timers) + 1)
    """)


@pytest.mark.skipif(FREE_THREADED, reason="without a GIL armed timers keep their handles, which are elsewhere")
def test_dropped_timers_count_their_pages(paged):
    """Not less than what is resident, by the machine's own pages, nor much more."""
    paged("""
        from timerheap import AfterFunc
        from timerheap.testing import ManualHeap

        def resident():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

        heap = ManualHeap()
        AfterFunc(1, int, heap=heap)
        for count in (1_000, 30_000, 200_000):
            before, counted = resident(), heap.nbytes
            for n in range(count):
                AfterFunc(1 + n % 2, int, heap=heap)
            heap.check()
            assert heap.nbytes % PAGE == 0
            assert 56 * count < heap.nbytes < 58 * count + 2**20 + 12 * PAGE, (count, heap.nbytes)
            assert resident() - before < heap.nbytes - counted + 2**20
            heap.advance(2)
            heap.check()
            assert heap.nbytes % PAGE == 0
        assert heap.nbytes < 2 * 2**20 + 2**18 + 8 * PAGE  # less than two chunks of records are kept
    """)
