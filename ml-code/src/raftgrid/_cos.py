"""cos on [0, pi] with the bits of the Rust crate `libm` 0.2, which is FreeBSD's (fdlibm): the C library's differs between hosts.

After s_cos.c, k_cos.c, k_sin.c and e_rem_pio2.c: Copyright (C) 1993 by Sun Microsystems, Inc. All rights reserved. Developed at SunPro, a Sun
Microsystems, Inc. business. Permission to use, copy, modify, and distribute this software is freely granted, provided that this notice is
preserved. Python's floats are IEEE 754 binary64 and no operation is fused with another.
"""

from __future__ import annotations

import struct
from typing import Tuple

_PIO2_1, _PIO2_1T = float.fromhex("0x1.921fb544p+0"), float.fromhex("0x1.0b4611a626331p-34")
_PIO2_2, _PIO2_2T = float.fromhex("0x1.0b4611a6p-34"), float.fromhex("0x1.3198a2e037073p-69")
_PIO2_3, _PIO2_3T = float.fromhex("0x1.3198a2ep-69"), float.fromhex("0x1.b839a252049c1p-104")
_INV_PIO2 = 6.36619772367581382433e-01
_TO_INT = 1.5 / 2.2204460492503131e-16


def cos(x: float) -> float:
    """For x from 0 to pi, in radians."""
    high = _high_word(x)
    if high <= 0x3FE921FB:  # about pi/4
        return 1.0 if high < 0x3E46A09E else _kernel_cos(x, 0.0)
    n, y0, y1 = _remainder(x, high)
    return -_kernel_sin(y0, y1) if n == 1 else -_kernel_cos(y0, y1)


def _high_word(x: float) -> int:
    return struct.unpack(">Q", struct.pack(">d", x))[0] >> 32 & 0x7FFFFFFF


def _remainder(x: float, high: int) -> Tuple[int, float, float]:
    """x less n times pi/2, as a sum of two floats; n is 1 or 2."""
    if high & 0xFFFFF == 0x921FB:  # near pi/2 or pi: cancellation
        return _remainder_near(x, high)
    n = 1 if high <= 0x4002D97C else 2  # about 3 pi/4
    z = x - n * _PIO2_1
    y0 = z - n * _PIO2_1T
    return n, y0, (z - y0) - n * _PIO2_1T


def _remainder_near(x: float, high: int) -> Tuple[int, float, float]:
    n = x * _INV_PIO2 + _TO_INT - _TO_INT
    r, w = x - n * _PIO2_1, n * _PIO2_1T
    y0 = r - w
    exponent = high >> 20
    if exponent - (_high_word(y0) >> 20) > 16:
        t, w = r, n * _PIO2_2
        r = t - w
        w = n * _PIO2_2T - ((t - r) - w)
        y0 = r - w
        if exponent - (_high_word(y0) >> 20) > 49:
            t, w = r, n * _PIO2_3
            r = t - w
            w = n * _PIO2_3T - ((t - r) - w)
            y0 = r - w
    return int(n), y0, (r - y0) - w


def _kernel_cos(x: float, y: float) -> float:
    z = x * x
    w = z * z
    r = z * (4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 + z * 2.48015872894767294178e-05)) + w * w * (
        -2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11)
    )
    hz = 0.5 * z
    w = 1.0 - hz
    return w + (((1.0 - w) - hz) + (z * r - x * y))


def _kernel_sin(x: float, y: float) -> float:
    z = x * x
    w = z * z
    r = (
        8.33333333332248946124e-03
        + z * (-1.98412698298579493134e-04 + z * 2.75573137070700676789e-06)
        + z * w * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)
    )
    v = z * x
    return x - ((z * (0.5 * y - v * r) - y) - v * -1.66666666666666324348e-01)
