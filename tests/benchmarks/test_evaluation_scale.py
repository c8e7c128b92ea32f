import json

import evaluation_scale
import pytest
import scale_report


def test_the_section_reports_what_was_measured(tmp_path):
    lines = []
    for size in (200, 300):
        evaluation_scale.write_archive(tmp_path, size)
        lines.append(evaluation_scale.measure_archive(tmp_path, size, repeats=1, device="cpu"))
    lines.append(evaluation_scale.measure_square(tmp_path, 300, repeats=1, device="cpu"))
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = "\n".join(scale_report.large_archives(path))
    for line in lines[:2]:
        assert f"| {line['references']} | {line['seconds']:.2f} |" in text
    ratio = lines[2]["seconds"]["all metrics"] / lines[2]["seconds"]["faiss"]
    assert f"for all metrics ({ratio:.2f} times faiss)" in text


def test_the_fit_finds_the_line():
    lines = [{"references": size, "seconds": 0.5 + 2e-6 * size} for size in (10, 10**4, 10**6)]
    assert scale_report.fit(lines) == pytest.approx((0.5, 2e-6))


def test_a_gpu_with_half_its_speed_needs_this_long():
    assert scale_report.gpu_seconds(10**5, 10**7) == pytest.approx(1e12 * 256 / 33.5e12 + 1e12 * 12 / 1.675e12)
