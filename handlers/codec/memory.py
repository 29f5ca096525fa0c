"""Keeps big activations in the heap.

glibc hands every large freed block back to the kernel and faults it in again, page by page, at the
next allocation: hundreds of thousands of page faults per encode, and a batch slower than its parts.
"""

import ctypes

# mallopt(3) of glibc: (parameter, value)
M_MMAP_MAX = (-4, 0)  # allocate nothing by mmap, which is unmapped as soon as it is freed
M_TRIM_THRESHOLD = (-1, -1)  # never shrink the heap
M_TOP_PAD = (-2, 256 * 2**20)  # grow it in large steps


def keep_activations_in_heap() -> bool:
    """Tell malloc to keep freed memory for the next batch; call before the model is loaded.

    Returns:
        False where the C library has no mallopt (macOS, musl), which has no such trap either.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    accepted = [mallopt(*option) for option in (M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD)]
    return all(accepted)
