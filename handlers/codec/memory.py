"""Configures malloc to keep large activations in the heap.

By default glibc returns every large freed block to the kernel, so the next allocation faults it in
again page by page. That costs hundreds of thousands of page faults per encode and makes a batch
slower than the same jobs one by one.
"""

import ctypes

# mallopt(3) of glibc: (parameter, value)
M_MMAP_MAX = (-4, 0)  # never allocate with mmap: such blocks are unmapped as soon as they are freed
M_TRIM_THRESHOLD = (-1, -1)  # never shrink the heap
M_TOP_PAD = (-2, 256 * 2**20)  # grow the heap in large steps


def keep_activations_in_heap() -> bool:
    """Make malloc keep freed memory for the next batch; call before the model is loaded.

    Returns:
        False if the C library has no mallopt (macOS, musl); it does not have the problem either.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    accepted = [mallopt(*option) for option in (M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD)]
    return all(accepted)
