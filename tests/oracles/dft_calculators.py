"""A factory as a user would write it, importable in worker processes."""


def gpaw_pbe():
    from gpaw import GPAW, PW

    return GPAW(mode=PW(300), xc="PBE", txt=None)
