"""The published potentials that have a name here."""

from __future__ import annotations

import dataclasses

_VASP = "total energies of VASP (PAW potentials of the Materials Project)"
_ALL_ELECTRONS = "total energies of all electrons"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A published potential.

    Attributes:
        name: what ``mlipjax.load`` takes.
        elements: atomic numbers it knows; empty for an embedded model, whose own configuration says it.
        functional: of the calculations that labelled its training data; of several, those of its heads.
        data: what it was trained on.
        licence: of the weights.
        citation: paper to cite.
        url: where to download it; ``None`` for a model that comes with this package.
        sha256: of the file; ``None`` for a model that comes with this package, or if it has not been verified.
        terms: what to know before the download, such as a licence that forbids some uses.
        package: where an installed package of another program has the file, as path from its folder's parent.
        dispersion: whether its labels hold a dispersion correction.
        energies: what its energies are, in eV with atoms of that program far apart as their zero.
        remark: what else to know of its labels.
    """

    name: str
    elements: tuple[int, ...]
    functional: str
    data: str
    licence: str
    citation: str
    url: str | None = None
    sha256: str | None = None
    terms: str | None = None
    package: str | None = None
    dispersion: bool = False
    energies: str = _VASP
    remark: str | None = None

    @property
    def level(self) -> str:
        """Level of theory of its training data, in one line."""
        return ", ".join(filter(None, (self.functional, self.data, self.remark)))

    @property
    def functionals(self) -> tuple[str, ...]:
        """Names of the functionals, without what is added to them (+U, dispersion)."""
        return tuple(name.removesuffix("+U").removesuffix("-D3(BJ)") for name in self.functional.split("/"))

    @property
    def hubbard_u(self) -> bool:
        """Tell whether d states of some elements have a +U."""
        return "+U" in self.functional

    @property
    def hubbard_elements(self) -> tuple[int, ...]:
        """Atomic numbers of the elements that have a U in oxides and fluorides, and nowhere else."""
        return _MATERIALS_PROJECT_U if self.hubbard_u else ()

    @property
    def verified(self) -> bool:
        """Tell whether the file's SHA-256 is known here."""
        return self.embedded or self.sha256 is not None

    @property
    def embedded(self) -> bool:
        """Tell whether the model comes with this package."""
        return self.url is None

    @property
    def file_name(self) -> str:
        """Name of the downloaded file; empty for a model that comes with this package."""
        file = (self.url or "").rsplit("/", 1)[-1]
        # files in folders of a package may have one name
        return f"{self.name}.{file.rsplit('.', 1)[-1]}" if self.package else file


_MATERIALS_PROJECT_U = (23, 24, 25, 26, 27, 28, 42, 74)
"""V, Cr, Mn, Fe, Co, Ni, Mo, W: 3.25, 3.7, 3.9, 5.3, 3.32, 6.2, 4.38, 6.2 eV (Jain et al., Phys. Rev. B 84, 045115)."""
_VASP_54 = "VASP 54 pseudopotentials"
_NEQUIX = "https://github.com/atomicarchitects/nequix/raw"
_NEQUIX_ELEMENTS = (*range(1, 84), *range(89, 95))
_NEQUIX_PAPER = "Koker, Kotak, Smidt, Training a foundation model for materials on a budget, arXiv:2508.16067 (2025)"
_PFT_PAPER = (
    "Koker, Gangan, Kotak, Marian, Smidt, PFT: Phonon fine-tuning for machine learned interatomic "
    "potentials, arXiv:2601.07742 (2026)"
)

_NEQUIX_ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="universal",
        elements=(),
        functional="GFN1-xTB",
        data="own structures",
        dispersion=True,
        energies="total energies of GFN1-xTB (valence electrons)",
        licence="MIT",
        citation="made by this project: experiments/pretrain",
    ),
    Entry(
        name="nequix-mp-1",
        elements=_NEQUIX_ELEMENTS,
        functional="PBE+U",
        data="MPtrj",
        licence="CC-BY-4.0",
        citation=_NEQUIX_PAPER,
        url=f"{_NEQUIX}/7c2854de8e754b1a60274c7d9d2e014989ed632e/models/nequix-mp-1.nqx",
        sha256="1647af8e627e1afa11e2bfadeab0797326513a521afd7dd01606a96f56783eee",
    ),
    Entry(
        name="nequix-omat-1",
        elements=_NEQUIX_ELEMENTS,
        functional="PBE+U",
        data="OMat24",
        remark=_VASP_54,
        licence="CC-BY-4.0",
        citation=_PFT_PAPER,
        url=f"{_NEQUIX}/9c852a9c4cce69ae5e75bc5a2cf670be21ff8c28/models/nequix-omat-1.nqx",
        sha256="2d0802ae7f5915cb488c44d25649d98404a103697e6500abb40f515e003a46a6",
    ),
    Entry(
        name="nequix-oam-1-pft",
        elements=_NEQUIX_ELEMENTS,
        functional="PBE+U",
        data="OMat24+sAlex+MPtrj",
        remark="then MDR phonons",
        licence="CC-BY-4.0",
        citation=_PFT_PAPER,
        url=f"{_NEQUIX}/9c852a9c4cce69ae5e75bc5a2cf670be21ff8c28/models/nequix-oam-1-pft.nqx",
        sha256="4ce693d68886512aab50c84ea2400efd68163e11155f7c7babe98e695177e809",
    ),
)

_MACE = "https://github.com/ACEsuit/mace-mp/releases/download"
_FOUNDATIONS = "https://github.com/ACEsuit/mace-foundations/releases/download"
_MACE_OFF = "https://raw.githubusercontent.com/ACEsuit/mace-off/main/mace_off23"
_MACE_ELEMENTS = (*range(1, 84), *range(89, 95))
_MACE_OFF_ELEMENTS = (1, 6, 7, 8, 9, 15, 16, 17, 35, 53)
_MACE_PAPER = "Batatia et al., A foundation model for atomistic materials chemistry, arXiv:2401.00096 (2023)"
_MACE_OFF_PAPER = "Kovács et al., MACE-OFF: transferable short range machine learning force fields, arXiv:2312.15211"
_MACE_MH_PAPER = (
    "Batatia et al., Cross learning between electronic structure theories for unifying molecular, surface, and "
    "inorganic crystal foundation force fields, arXiv:2510.25380 (2025)"
)
_ASL = "ASL (academic, no commercial use)"
_ASL_TERMS = (
    "distributed under the Academic Software License, which does not permit commercial use "
    "(https://github.com/gabor1/ASL); whoever uses the model accepts its terms."
)
_MPTRJ = ("PBE+U", "MPtrj")
_MIT_FILES = {
    "mace-mp-0-small": ("MPtrj", "mace_mp_0/2023-12-10-mace-128-L0_energy_epoch-249.model"),
    "mace-mp-0-medium": ("MPtrj", "mace_mp_0/2023-12-03-mace-128-L1_epoch-199.model"),
    "mace-mp-0-large": ("MPtrj", "mace_mp_0/MACE_MPtrj_2022.9.model"),
    "mace-mp-0b-small": ("MPtrj", "mace_mp_0b/mace_agnesi_small.model"),
    "mace-mp-0b-medium": ("MPtrj", "mace_mp_0b/mace_agnesi_medium.model"),
    "mace-mp-0b2-small": ("MPtrj", "mace_mp_0b2/mace-small-density-agnesi-stress.model"),
    "mace-mp-0b2-medium": ("MPtrj", "mace_mp_0b2/mace-medium-density-agnesi-stress.model"),
    "mace-mp-0b2-large": ("MPtrj", "mace_mp_0b2/mace-large-density-agnesi-stress.model"),
    "mace-mp-0b3-medium": ("MPtrj", "mace_mp_0b3/mace-mp-0b3-medium.model"),
    "mace-mpa-0-medium": ("MPtrj+sAlex", "mace_mpa_0/mace-mpa-0-medium.model"),
}
_OMAT = ("PBE+U", "OMat24", _MACE_PAPER, _VASP_54)
_MANY = (
    "PBE+U/r2SCAN",
    "OMat24+OMol25+more",
    _MACE_MH_PAPER,
    "of molecules wB97M-VV10 of all electrons, a head each",
)
_ASL_FILES = {
    "mace-omat-0-small": (*_OMAT, f"{_MACE}/mace_omat_0/mace-omat-0-small.model"),
    "mace-omat-0-medium": (*_OMAT, f"{_MACE}/mace_omat_0/mace-omat-0-medium.model"),
    "mace-matpes-pbe-0": (
        "PBE", "MatPES", _MACE_PAPER, None, f"{_FOUNDATIONS}/mace_matpes_0/MACE-matpes-pbe-omat-ft.model"
    ),
    "mace-matpes-r2scan-0": (
        "r2SCAN", "MatPES", _MACE_PAPER, None, f"{_FOUNDATIONS}/mace_matpes_0/MACE-matpes-r2scan-omat-ft.model"
    ),
    "mace-mh-0": (*_MANY, f"{_FOUNDATIONS}/mace_mh_1/mace-mh-0.model"),
    "mace-mh-1": (*_MANY, f"{_FOUNDATIONS}/mace_mh_1/mace-mh-1.model"),
    "mace-omol-0": (
        "wB97M-VV10", "OMol25", _MACE_MH_PAPER, "read for neutral singlets",
        f"{_FOUNDATIONS}/mace_omol_0/MACE-omol-0-extra-large-1024.model",
    ),
}  # fmt: skip
"""Functional, data, citation, remark and address."""
_OFF_FILES = {f"mace-off23-{size}": f"MACE-OFF23_{size}.model" for size in ("small", "medium", "large")}
# none of these files has been seen by this project: their hashes are not known
_MACE_ENTRIES = (
    *(
        Entry(name, _MACE_ELEMENTS, "PBE+U", data, "MIT", _MACE_PAPER, url=f"{_MACE}/{path}")
        for name, (data, path) in _MIT_FILES.items()
    ),
    *(
        Entry(
            name,
            _MACE_ELEMENTS,
            functional,
            data,
            _ASL,
            paper,
            url=url,
            terms=_ASL_TERMS,
            # also where it is some heads' alone: to add it to them again would be wrong, and nobody would see it
            dispersion="VV10" in f"{functional} {remark}",
            energies=_VASP if "wB97M" not in functional else _ALL_ELECTRONS,
            remark=remark,
        )
        for name, (functional, data, paper, remark, url) in _ASL_FILES.items()
    ),
    *(
        Entry(
            name,
            _MACE_OFF_ELEMENTS,
            "wB97M-D3(BJ)",
            "SPICE",
            _ASL,
            _MACE_OFF_PAPER,
            url=f"{_MACE_OFF}/{path}",
            terms=_ASL_TERMS,
            dispersion=True,
            energies=_ALL_ELECTRONS,
        )
        for name, path in _OFF_FILES.items()
    ),
)

_SEVENNET = "sevenn/pretrained_potentials"
_SEVENNET_PAPER = (
    "Park, Kim, Hwang, Han, Scalable parallel algorithm for graph neural network interatomic potentials in molecular "
    "dynamics simulations, J. Chem. Theory Comput. 20, 4857 (2024)"
)
_SEVENNET_FILES = {
    "sevennet-0": (
        _MPTRJ,
        "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
        "7052cb42b7b3be42b40b97fa0d21077a48c54b5548948fc4dcf346629f813c36",
    ),
    "sevennet-0-22may2024": (
        ("PBE+U", "MPF.2021.2.8"),
        "SevenNet_0__22May2024/checkpoint_sevennet_0.pth",
        "5d389fafd512e6ae2830d74d0b66ffc49a55d3832653ff8e7bf7f1343013c1d1",
    ),
    "sevennet-l3i5": (
        _MPTRJ,
        "SevenNet_l3i5/checkpoint_l3i5.pth",
        "a7ff190d41efe5b8317a03d20a468e4036a1a3e64e0b14fdbab64ac3f4bfc09d",
    ),
    "sevennet-mf-0": (
        ("PBE+U/r2SCAN", "Materials Project"),
        "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
        "81791329b37d445f46b531578c182c41792d98c7814222c9e5dde276402225fd",
    ),
}
_SEVENNET_ENTRIES = tuple(
    Entry(
        name,
        _MACE_ELEMENTS,
        functional,
        data,
        "MIT",
        _SEVENNET_PAPER,
        url=f"https://github.com/MDIL-SNU/SevenNet/raw/main/{_SEVENNET}/{path}",
        sha256=sha256,
        package=f"{_SEVENNET}/{path}",
    )
    for name, ((functional, data), path, sha256) in _SEVENNET_FILES.items()
)

ENTRIES: tuple[Entry, ...] = (*_NEQUIX_ENTRIES, *_SEVENNET_ENTRIES, *_MACE_ENTRIES)
