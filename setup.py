"""The C++ kernels of `graphfusion.ops.hetero_attention`: a plain C interface that is loaded by ctypes, so one build
serves every torch. Optional: without a compiler the package installs all the same and `graphfusion doctor` says so.
"""

from setuptools import Extension, setup

KERNELS = "graphfusion/ops/hetero_attention/kernels"

setup(
    ext_modules=[
        Extension(
            "graphfusion.ops.hetero_attention._kernels",
            sources=[f"{KERNELS}/{name}.cpp" for name in ("entry", "baseline", "avx2", "avx512")],
            depends=[
                f"{KERNELS}/{name}.h" for name in ("entry", "problem", "lanes", "rows", "attention", "linear", "width")
            ],
            # no -ffast-math: it breaks the exponential
            extra_compile_args=[
                "-std=gnu++17",
                "-O3",
                "-g0",
                "-fno-math-errno",
                "-fopenmp",
                "-ffp-contract=fast",
                "-Wno-psabi",
            ],
            extra_link_args=["-fopenmp"],
            optional=True,
        )
    ]
)
