import dataclasses
import hashlib
import http.server
import socket
import threading

import pytest

from mlipjax.models import registry

CONTENT = b"weights " * 1000
ENTRY = registry.Entry(
    name="test-model",
    elements=(1, 8),
    functional="PBE",
    data="none",
    licence="MIT",
    citation="none",
    url="http://127.0.0.1:0/files/test-model.bin",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.server.mode == "absent":
            self.send_error(404)
            return
        body = CONTENT[::-1] if self.server.mode == "other content" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:100] if self.server.mode == "broken" else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.mode, server.requests = "good", []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("MLIPJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLIPJAX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


def entry_at(port):
    return dataclasses.replace(ENTRY, url=f"http://127.0.0.1:{port}/files/test-model.bin")


def cached(folders):
    return sorted(path.name for path in (folders / "cache").glob("*"))


def test_a_file_is_downloaded_once_and_then_used_offline(server, folders):
    entry = entry_at(server.server_port)
    path = registry.fetch(entry)
    assert path == folders / "cache" / "test-model.bin"
    assert path.read_bytes() == CONTENT
    assert registry.fetch(entry) == path
    assert server.requests == ["/files/test-model.bin"]
    assert registry.fetch(entry_at(free_port())) == path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def one_line(error):
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("test-model: ")


def test_a_file_with_another_hash_is_not_used(server, folders):
    server.mode = "other content"
    with pytest.raises(ValueError, match="does not have the recorded SHA-256") as error:
        registry.fetch(entry_at(server.server_port))
    one_line(error)
    assert cached(folders) == []
    server.mode = "good"
    assert registry.fetch(entry_at(server.server_port)).read_bytes() == CONTENT


@pytest.mark.parametrize("mode", ["broken", "absent"])
def test_a_broken_download_leaves_nothing_behind(server, folders, mode):
    server.mode = mode
    with pytest.raises(ConnectionError, match=r"download of http://127.*failed") as error:
        registry.fetch(entry_at(server.server_port))
    one_line(error)
    assert cached(folders) == []


def test_no_connection():
    with pytest.raises(ConnectionError, match=r"failed .*; put the file at .*test-model\.bin") as error:
        registry.fetch(entry_at(free_port()))
    one_line(error)


def test_a_damaged_file_in_the_cache_is_replaced(server, folders):
    (folders / "cache").mkdir()
    (folders / "cache" / "test-model.bin").write_bytes(CONTENT[:-1])
    assert registry.fetch(entry_at(server.server_port)).read_bytes() == CONTENT


def test_the_data_folder_comes_first_if_its_hash_is_right(server, folders):
    local = folders / "data" / "weights" / "test-model.bin"
    local.parent.mkdir(parents=True)
    local.write_bytes(CONTENT)
    assert registry.fetch(entry_at(server.server_port)) == local
    assert server.requests == []
    local.write_bytes(b"another file of that name")
    assert registry.fetch(entry_at(server.server_port)) == folders / "cache" / "test-model.bin"


def test_unknown_names_get_suggestions():
    assert registry.find_entry("nequix-mp-1").licence == "CC-BY-4.0"
    with pytest.raises(ValueError, match="'nequix-mp1'; did you mean nequix-mp-1"):
        registry.find_entry("nequix-mp1")
    with pytest.raises(ValueError, match="known models: universal, nequix-mp-1"):
        registry.find_entry("zzz")


def test_entries_are_complete():
    entries = registry.known_entries()
    assert len({entry.name for entry in entries}) == len(entries)
    assert len({entry.file_name for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.licence
        assert entry.citation
        assert entry.level
        if entry.embedded:
            assert entry.sha256 is None
            continue
        assert entry.url.startswith(("https://github.com/", "https://raw.githubusercontent.com/ACEsuit/"))
        assert len(entry.elements) == (10 if "off23" in entry.name else 89)
        assert entry.verified == entry.name.startswith(("nequix", "sevennet"))
        assert not entry.verified or len(bytes.fromhex(entry.sha256)) == 32
        # a licence that forbids uses is shown before the download
        assert ("commercial" in entry.licence) == (entry.terms is not None)


UNVERIFIED = dataclasses.replace(ENTRY, sha256=None, terms="for academic use only.")


def test_an_unverified_file_is_trusted_at_first_use_only(server, folders, capsys):
    entry = dataclasses.replace(entry_at(server.server_port), sha256=None, terms=UNVERIFIED.terms)
    path = registry.fetch(entry)
    terms, download, trust = capsys.readouterr().err.splitlines()
    assert download.startswith(f"test-model: downloading http://127.0.0.1:{server.server_port}/files/")
    assert terms == "test-model: for academic use only."
    assert "no verified SHA-256" in trust
    assert hashlib.sha256(CONTENT).hexdigest() in trust
    assert registry.fetch(entry) == registry.find_local(entry) == path
    assert server.requests == ["/files/test-model.bin"]
    assert capsys.readouterr().err == ""

    path.write_bytes(b"another file")
    with pytest.raises(ValueError, match="when it was first used") as error:
        registry.fetch(entry)
    one_line(error)
    path.unlink()
    server.mode = "other content"
    with pytest.raises(ValueError, match="damaged or replaced"):
        registry.fetch(entry)
    path.unlink()
    server.mode = "good"
    assert registry.fetch(entry).read_bytes() == CONTENT


def test_an_unverified_file_of_the_user_is_recorded_without_a_download(folders):
    local = folders / "data" / "weights" / "test-model.bin"
    local.parent.mkdir(parents=True)
    local.write_bytes(CONTENT)
    assert registry.find_local(UNVERIFIED) is None
    assert registry.fetch(UNVERIFIED) == local
    assert registry.find_local(UNVERIFIED) == local


def test_without_a_data_folder_nothing_outside_of_the_cache_is_looked_at(folders, monkeypatch):
    monkeypatch.delenv("MLIPJAX_DATA")
    assert registry.data_folder() == folders / "cache" / "data"


def test_recorded_hashes_are_those_of_the_published_files(shared_data, monkeypatch):
    monkeypatch.setenv("MLIPJAX_DATA", str(shared_data))
    for entry in registry.known_entries():
        if entry.sha256 is not None and entry.package is None:
            assert registry.fetch(entry).parent == shared_data / "weights"


def test_a_file_of_an_installed_package_serves_and_nothing_of_the_package_is_run(folders, monkeypatch):
    entry = dataclasses.replace(ENTRY, package="other_code/weights/model.bin")
    assert registry.find_local(entry) is None
    (folders / "other_code" / "weights").mkdir(parents=True)
    (folders / "other_code" / "__init__.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(str(folders))
    assert registry.find_local(entry) is None
    file = folders / "other_code" / "weights" / "model.bin"
    file.write_bytes(CONTENT[:-1])
    assert registry.find_local(entry) is None
    file.write_bytes(CONTENT)
    assert registry.fetch(entry) == file
    # a downloaded file is named after the model: those of a package may have one name
    (folders / "cache").mkdir()
    (folders / "cache" / "test-model.bin").write_bytes(CONTENT)
    assert registry.fetch(entry) == folders / "cache" / "test-model.bin"


def test_embedded_models_are_found_in_an_installation_and_in_a_checkout(tmp_path, monkeypatch):
    package = tmp_path / "site" / "mlipjax"
    monkeypatch.setattr(registry, "_PACKAGE", package)
    with pytest.raises(FileNotFoundError, match="'universal' is neither at"):
        registry.fetch(registry.find_entry("universal"))
    (tmp_path / "site" / "data" / "universal").mkdir(parents=True)
    assert registry.fetch(registry.find_entry("universal")) == tmp_path / "site" / "data" / "universal"
    (package / "_data" / "universal").mkdir(parents=True)
    assert registry.fetch(registry.find_entry("universal")) == package / "_data" / "universal"
