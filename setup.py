"""What pyproject.toml cannot say of the package: requirements*.txt has its pins, and configs/ goes inside."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
EXTRAS = ("gpu", "tpu", "dev", "bucket", "wandb", "textarena")
CONFIGS = "coevo_jax.configs"  # where the wheel has configs/


def pins(name: str) -> list[str]:
    """The requirements of a file, without those of the file that it begins with."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith(("#", "-r "))]


def config_packages() -> list[str]:
    """configs/ and its folders, as packages that hold nothing but data."""
    folders = sorted({path.parent for path in (ROOT / "configs").rglob("*.yaml")})
    return [".".join((CONFIGS, *folder.relative_to(ROOT / "configs").parts)) for folder in folders]


setup(
    packages=[*find_packages(include=["coevo_jax", "coevo_jax.*"]), *config_packages()],
    package_dir={CONFIGS: "configs"},
    package_data={"": ["*.yaml", "assets/*"]},
    include_package_data=False,
    install_requires=pins("requirements.txt"),
    extras_require={name: pins(f"requirements-{name}.txt") for name in EXTRAS},
)
