"""Instruments and fittings found in every laboratory: meters, displays, clamps, heaters, labels."""

from __future__ import annotations

import math

from expstar_utils.mini.canvas import Canvas
from expstar_utils.mini.sprites import sprite


@sprite
def dial(c: Canvas, value=0.0, label="A", color="#f7f7f2"):
    """Needle instrument. value 0-1: needle from left to right; label: one or two letters."""
    c.rect(-0.5, 0, 1.0, 0.75, fill="#3b4046", edge="#222222", width=0.02)
    c.rect(-0.42, 0.12, 0.84, 0.56, fill=color)
    c.arc(0, 0.16, 0.4, 30, 150, "#444444", 0.02)
    for i in range(6):
        a = math.radians(150 - 24 * i)
        c.line([(0.36 * math.cos(a), 0.16 + 0.36 * math.sin(a)), (0.42 * math.cos(a), 0.16 + 0.42 * math.sin(a))],
               "#444444", 0.02)
    a = math.radians(150 - 120 * min(max(value, -0.05), 1.05))
    c.line([(0, 0.16), (0.38 * math.cos(a), 0.16 + 0.38 * math.sin(a))], "#d01f1f", 0.035)
    c.text(0, 0.26, label, 0.12)


@sprite
def display(c: Canvas, text="0.00", color="#38e05a"):
    """Digital read-out; text of up to 6 characters."""
    c.rect(-0.5, 0, 1.0, 0.5, fill="#30353a", edge="#111111", width=0.02)
    c.rect(-0.43, 0.08, 0.86, 0.34, fill="#0d130d")
    c.text(0, 0.25, str(text), 0.2, color)


@sprite
def thermometer(c: Canvas, value=0.3, color="#d62020"):
    """Thermometer; value 0-1: height of the column."""
    c.rect(-0.06, 0.1, 0.12, 0.9, fill="#ffffff", edge="#666666", width=0.015)
    c.circle(0, 0.08, 0.1, fill=color)
    c.rect(-0.03, 0.1, 0.06, 0.05 + 0.8 * value, fill=color)
    for i in range(9):
        c.line([(0.06, 0.18 + 0.09 * i), (0.11, 0.18 + 0.09 * i)], "#555555", 0.01)


@sprite
def stand(c: Canvas, height=1.0, arm=0.4, arm_height=0.8):
    """Retort stand with an arm to the right (negative: left) at arm_height."""
    c.rect(-0.2, 0, 0.5, 0.05, fill="#4a4f55")
    c.line([(0, 0.03), (0, height)], "#6d747b", 0.035)
    c.line([(0, arm_height), (arm, arm_height)], "#6d747b", 0.03)


@sprite
def hotplate(c: Canvas, on=0.0):
    """Hot plate; on 0-1: its surface glows."""
    c.rect(-0.5, 0, 1.0, 0.2, fill="#d8dcdf", edge="#555555", width=0.02)
    c.rect(-0.45, 0.2, 0.9, 0.06, fill=(0.3 + 0.6 * on, 0.25, 0.25))
    c.circle(0.3, 0.1, 0.05, fill="#333333")


@sprite
def label(c: Canvas, text="A", color="#ffffff", ink="#222222"):
    """Paper label, origin at its centre; text of up to 5 Latin letters or digits."""
    c.rect(-0.5, -0.25, 1.0, 0.5, fill=color, edge="#888888", width=0.02)
    c.text(0, 0, str(text), 0.24, ink)


@sprite
def ruler(c: Canvas, length=1.0, marks=10):
    """Ruler lying to the right from the origin."""
    c.rect(0, 0, length, 0.1, fill="#f0d48a", edge="#8a6d2f", width=0.01)
    for i in range(int(marks) + 1):
        x = length * i / int(marks)
        c.line([(x, 0.1), (x, 0.1 - (0.06 if i % 5 == 0 else 0.035))], "#5a4518", 0.008)


@sprite
def arrow(c: Canvas, length=0.3, color="#d62020", width=0.03):
    """Arrow from the origin to the right; turn it with `rotate`."""
    if abs(length) < 0.01:
        return
    c.line([(0, 0), (length, 0)], color, width)
    tip = math.copysign(min(abs(length) * 0.5, 0.12), length)
    c.poly([(length + tip * 0.4, 0), (length - tip * 0.7, 0.08), (length - tip * 0.7, -0.08)], fill=color)


@sprite
def box(c: Canvas, width=1.0, height=1.0, color="#c8ccd0", edge="#555555", line=0.015):
    """Plain rectangle standing on the origin."""
    c.rect(-width / 2, 0, width, height, fill=color, edge=edge, width=line)


@sprite
def disc(c: Canvas, radius=0.5, color="#c8ccd0", edge="#555555", line=0.015):
    """Plain disc centred at the origin."""
    c.circle(0, 0, radius, fill=color, edge=edge, width=line)


@sprite
def wire(c: Canvas, points=((0, 0), (1, 0)), color="#333333", width=0.015):
    """Polyline through `points`, in local units."""
    c.line([tuple(p) for p in points], color, width)
