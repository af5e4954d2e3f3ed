"""How a report writes a number."""

import math


def number(value: float) -> str:
    """Four significant digits with thousands separators; whole numbers in full.

    >>> number(1234567), number(2e-05), number(1.23456), number(float("nan"))
    ('1,234,567', '2e-5', '1.235', 'NaN')
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    if 1000 <= abs(value) < 1e15:
        return f"{value:,.0f}".replace("-", "−")
    return short(value)


def short(value: float, digits: int = 4) -> str:
    """`digits` significant digits, the exponent without padding.

    >>> short(0.00012), short(1.5e-05), short(-2e+20)
    ('0.00012', '1.5e-5', '−2e20')
    """
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    text = f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return "−" + text[1:] if text.startswith("-") else text


def share(part: float, whole: float) -> str:
    """`part` of `whole` in percent; a few are never shown as none, nor nearly all as all.

    >>> share(1, 8), share(1, 100_000), share(99_999, 100_000), share(0, 0)
    ('12.5%', '<0.1%', '>99.9%', '0%')
    """
    if part == 0 or whole == 0:
        return "0%"
    percent = 100 * part / whole
    if percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.1f}".removesuffix(".0") + "%"
