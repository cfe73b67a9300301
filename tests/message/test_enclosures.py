"""Files that only one row's message has: which are found, which are not, and what is shared."""

import os
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.attachments import enclosures
from bulkmail.message.attachments.enclosures import Folder, Unusable
from bulkmail.message.compose.composer import Composer
from bulkmail.model.campaign import Attachment, RowAttachment, Template
from bulkmail.model.errors import ConfigError, TemplateError
from tests.message.pages import campaign_of, composed, kinds, row


@pytest.fixture
def folder(tmp_path):
    """Files of rows, a secret beside them, and ways that lead from one to the other."""
    root = tmp_path / "files"
    (root / "invoices").mkdir(parents=True)
    (root / "invoices" / "7.pdf").write_bytes(b"%PDF seven")
    (root / "invoices" / "8.pdf").write_bytes(b"%PDF eight")
    (root / "Rechnung für Zoë.pdf").write_bytes(b"%PDF zoe")
    (root / "请.txt").write_bytes("请".encode())
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (tmp_path / "files-too").mkdir()
    (tmp_path / "files-too" / "x.txt").write_bytes(b"secret")
    (root / "inside.pdf").symlink_to(root / "invoices" / "7.pdf")
    (root / "inner").symlink_to(root / "invoices")
    (root / "out.txt").symlink_to(tmp_path / "secret.txt")
    (root / "away").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    return root


def of(folder, path, **more):
    return RowAttachment(Template("campaign.toml:9: attachments", path), str(folder), **more)


def message_for(folder, path, fields, **more):
    return composed(fields, text="x", row_attachments=(of(folder, path, **more),))


def test_file_of_the_row_is_attached(folder):
    message = message_for(folder, "invoices/{{ id }}.pdf", {"id": "7"})
    assert kinds(message) == ["multipart/mixed", "text/plain", "application/pdf"]
    (file,) = message.iter_attachments()
    assert file.get_content() == b"%PDF seven"
    assert file.get_filename() == "7.pdf"
    assert file.get_content_disposition() == "attachment"


def test_absolute_path_may_lead_below_the_folder_and_nowhere_else(folder):
    (file,) = message_for(folder, "{{ file }}", {"file": f"{folder}/invoices/7.pdf"}).iter_attachments()
    assert file.get_content() == b"%PDF seven"
    for path in (f"{folder}-too/x.txt", f"{folder}/../secret.txt", f"{folder}/out.txt", f"{folder}/", f"{folder}"):
        with pytest.raises(TemplateError):
            message_for(folder, "{{ file }}", {"file": path})


@pytest.mark.parametrize("path", ["Rechnung für Zoë.pdf", "请.txt", "inside.pdf", "inner/8.pdf", "./invoices//7.pdf"])
def test_file_is_found_by_any_name_below_the_folder(folder, path):
    (file,) = message_for(folder, "{{ file }}", {"file": path}).iter_attachments()
    assert file.get_filename() == path.rpartition("/")[2]


ATTACKS = {
    "../secret.txt": 'has ".." in it',
    "invoices/../../secret.txt": 'has ".." in it',
    "/etc/passwd": "is an absolute path",
    "C:/x.txt": "is an absolute path",
    "C:\\x.txt": "is an absolute path",
    "\\\\server\\x": "is an absolute path",
    "~/x": "is an absolute path",
    "invoices\\7.pdf": "has a backslash",
    "out.txt": "leads out of the folder",
    "away/secret.txt": "leads out of the folder",
    "away/files-too/x.txt": "leads out of the folder",
    "loop": "cannot be opened",
    "pipe": "is not an ordinary file",
    "invoices": "is a folder",
    "invoices/": "names no file",
    ".": "names no file",
    "invoices/9.pdf": "is not there",
    "invoices/7.pdf/x": "is not there",
    "x" * 300: "is not a name for an attachment",
}


@pytest.mark.parametrize("path", ATTACKS)
def test_no_cell_names_a_file_elsewhere(folder, path):
    composer = Composer(campaign_of(text="x", row_attachments=(of(folder, "{{ file }}"),)), run_id="run")
    with pytest.raises(TemplateError) as caught:
        composer.check(row(file=path))
    assert str(caught.value).startswith("campaign.toml:9: attachments: attachment ")
    if path not in (".", "invoices/"):
        assert ATTACKS[path] in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["a\r\nX: 1", "a\0b", "a\u2028b", "{{ 7*7 }}", "{{ ''.__class__ }}", "<script>", "javascript:alert(1)"],
    ids=["line", "nul", "separator", "template", "class", "html", "script"],
)
def test_no_cell_breaks_out_of_a_file_name(folder, path):
    composer = Composer(campaign_of(text="x", row_attachments=(of(folder, "{{ file }}"),)), run_id="run")
    with pytest.raises(TemplateError):
        composer.compose(row(file=path), row=1, forward_path="a@example.com", date=0.0)


@given(
    st.lists(st.sampled_from(["..", ".", "", "invoices", "away", "out.txt", "7.pdf", "~", "\\", "secret.txt", "inner"]))
)
def test_no_path_leads_out(tmp_path_factory, parts):
    if not hasattr(test_no_path_leads_out, "root"):
        base = tmp_path_factory.mktemp("fence")
        root = base / "files"
        (root / "invoices").mkdir(parents=True)
        (root / "invoices" / "7.pdf").write_bytes(b"fine")
        (base / "secret.txt").write_bytes(b"secret")
        (root / "away").symlink_to(base)
        (root / "out.txt").symlink_to(base / "secret.txt")
        (root / "inner").symlink_to("invoices")
        test_no_path_leads_out.root = root
    try:
        descriptor = Folder(str(test_no_path_leads_out.root)).open("/".join(parts))
    except Unusable:
        return
    with open(descriptor, "rb") as file:
        assert file.read() == b"fine"


def test_link_put_in_after_the_look_is_not_followed(folder, tmp_path, monkeypatch):
    """Between finding out where a path leads and opening it, someone puts a link there."""
    real = os.path.realpath(folder / "invoices" / "7.pdf")
    monkeypatch.setattr(os.path, "realpath", lambda path: real if "7.pdf" in str(path) else str(folder))
    (folder / "invoices" / "7.pdf").unlink()
    (folder / "invoices" / "7.pdf").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(Unusable, match="cannot be opened"):
        Folder(str(folder)).open("invoices/7.pdf")


def test_folder_put_in_as_a_link_is_not_followed(folder, tmp_path, monkeypatch):
    real = os.path.realpath(folder / "invoices" / "7.pdf")
    monkeypatch.setattr(os.path, "realpath", lambda path: real if "7.pdf" in str(path) else str(folder))
    (folder / "invoices").rename(tmp_path / "elsewhere")
    (folder / "invoices").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unusable):
        Folder(str(folder)).open("invoices/7.pdf")


def test_opening_leaves_no_descriptor_behind(folder):
    before = len(os.listdir("/proc/self/fd"))
    composer = Composer(campaign_of(text="x", row_attachments=(of(folder, "{{ file }}"),)), run_id="run")
    for path in [*ATTACKS, "inner/8.pdf"]:
        for use in (composer.check, lambda it: composer.compose(it, row=1, forward_path="a@example.com", date=0.0)):
            try:
                use(row(file=path))
            except TemplateError:
                continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_file_that_is_too_large_is_refused(folder, monkeypatch):
    monkeypatch.setattr(enclosures, "LARGEST_FILE", 9)
    with pytest.raises(TemplateError, match="has 0 MB; 0 are allowed"):
        message_for(folder, "invoices/7.pdf", {})


def test_folder_that_is_gone_stops_the_campaign(tmp_path):
    with pytest.raises(ConfigError, match=r"the folder of the attachments, .*/gone, is not there"):
        message_for(tmp_path / "gone", "x", {})


# --- none, names and types


def test_empty_path_is_an_error_unless_the_file_is_optional(folder):
    with pytest.raises(TemplateError, match="names no file"):
        message_for(folder, "{{ file }}", {"file": ""})
    message = message_for(folder, "{{ file }}", {"file": " "}, is_optional=True)
    assert kinds(message) == ["multipart/mixed", "text/plain"]


def test_optional_file_that_is_named_must_be_there(folder):
    with pytest.raises(TemplateError, match="is not there"):
        message_for(folder, "{{ file }}", {"file": "no.pdf"}, is_optional=True)


def test_file_goes_by_another_name_and_type(folder):
    message = message_for(
        folder,
        "invoices/{{ id }}.pdf",
        {"id": "8", "name": "Zoë"},
        filename=Template("n", "Rechnung {{ name }}.pdf"),
        content_type="application/x-pdf",
    )
    (file,) = message.iter_attachments()
    assert file.get_filename() == "Rechnung Zoë.pdf"
    assert file.get_content_type() == "application/x-pdf"


@pytest.mark.parametrize("name", ["../a.pdf", "a\\b.pdf", "", "=?utf-8?q?a?=", "x" * 300])
def test_no_cell_makes_a_file_name_of_another_folder(folder, name):
    with pytest.raises(TemplateError):
        message_for(folder, "invoices/7.pdf", {"name": name}, filename=Template("n", "{{ name }}"))


def test_folder_that_the_campaign_names_stands_for_the_beginning_of_the_path(folder):
    path = f"{folder}/invoices/"
    message = message_for(folder / "invoices", path + "{{ id }}.pdf", {"id": "7"}, prefix=len(path))
    assert message.is_multipart()
    with pytest.raises(TemplateError, match=r'has "\.\." in it'):
        message_for(folder / "invoices", path + "{{ id }}.pdf", {"id": "../x"}, prefix=len(path))


# --- sharing


def test_message_with_files_of_all_and_of_the_row(folder):
    common = Attachment("common.pdf", "application/pdf", bytes(range(256)) * 40)
    message = composed(
        {"id": "7"},
        html="<p>x</p>",
        attachments=(common,),
        row_attachments=(of(folder, "invoices/{{ id }}.pdf"), of(folder, "invoices/8.pdf")),
    )
    assert [file.get_content() for file in message.iter_attachments()] == [
        common.content,
        b"%PDF seven",
        b"%PDF eight",
    ]


def compose(composer, number, **fields):
    return composer.compose(row(**fields), row=number, forward_path="ann@example.com", date=0.0)


def test_file_of_many_rows_is_read_once_and_shared(folder, monkeypatch):
    (folder / "big.bin").write_bytes(os.urandom(100_000))
    composer = Composer(campaign_of(text="x", row_attachments=(of(folder, "{{ file }}"),)), run_id="run")
    encoded = []
    monkeypatch.setattr(enclosures, "base64_lines", lambda data: encoded.append(data) or b"x")
    one, two = (compose(composer, number, file="big.bin") for number in (1, 2))
    assert len(encoded) == 1
    assert any(buffer is other for buffer in one.buffers for other in two.buffers)


def test_file_that_changes_is_read_again(folder):
    composer = Composer(campaign_of(text="x", row_attachments=(of(folder, "invoices/7.pdf"),)), run_id="run")
    one = compose(composer, 1)
    assert one.digest() == compose(composer, 1).digest()
    (folder / "invoices" / "7.pdf").write_bytes(b"%PDF another")
    assert one.digest() != compose(composer, 1).digest()


def test_what_is_remembered_of_files_is_bounded(folder, monkeypatch):
    monkeypatch.setattr(enclosures, "KEPT", 300_000)
    for number in range(10):
        (folder / f"{number}.bin").write_bytes(os.urandom(100_000))
    composer = Composer(campaign_of(text="x", row_attachments=(of(folder, "{{ n }}.bin"),)), run_id="run")
    for number in range(10):
        compose(composer, number, n=str(number))
    shelf = composer._files._shelf
    assert shelf._size == sum(map(len, shelf._kept.values())) <= 300_000
    assert len(shelf._kept) == 2


def test_campaign_without_files_of_rows_has_a_constant_end():
    campaign = campaign_of(text="x")
    assert Composer(campaign, run_id="run")._plan.last == ()
    assert Composer(replace(campaign, row_attachments=()), run_id="run")._plan.last == ()


def names_and_content(message):
    return [(file.get_filename(), file.get_content()) for file in message.iter_attachments()]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_of_a_file_name_may_be_written_either_way(folder, form):
    other = "NFD" if form == "NFC" else "NFC"
    (folder / unicodedata.normalize(other, "Büro")).mkdir()
    (folder / unicodedata.normalize(other, "Büro") / unicodedata.normalize(other, "Müller.pdf")).write_bytes(b"%PDF")
    message = message_for(folder, "{{ file }}", {"file": unicodedata.normalize(form, "Büro/Müller.pdf")})
    assert names_and_content(message) == [(unicodedata.normalize("NFC", "Müller.pdf"), b"%PDF")]


def test_link_that_leads_out_is_not_found_by_its_accents_either(folder, tmp_path):
    (folder / unicodedata.normalize("NFD", "Müller.txt")).symlink_to(tmp_path / "secret.txt")
    composer = Composer(campaign_of(text="x", row_attachments=(of(folder, "{{ file }}"),)), run_id="run")
    with pytest.raises(TemplateError, match="leads out of the folder"):
        composer.check(row(file=unicodedata.normalize("NFC", "Müller.txt")))


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("Invoices/7.PDF", "invoices/7.pdf"),
        ("invoices/77.pdf", "invoices/7.pdf"),
        ("rechnung FÜR zoë.pdf", "Rechnung für Zoë.pdf"),
    ],
)
def test_missing_file_comes_with_the_name_that_may_be_meant(folder, path, meant):
    composer = Composer(campaign_of(text="x", row_attachments=(of(folder, "{{ file }}"),)), run_id="run")
    with pytest.raises(TemplateError, match=f"is not there; did you mean '{meant}'\\?"):
        composer.check(row(file=path))


def test_hint_names_nothing_beyond_a_link(folder):
    composer = Composer(campaign_of(text="x", row_attachments=(of(folder, "{{ file }}"),)), run_id="run")
    with pytest.raises(TemplateError) as caught:
        composer.check(row(file="away/secret.tx"))
    assert "secret.txt" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("invoices/{{ file }}", {"file": "7.pdf; 8.pdf;"}),
        ("invoices/{{ file }}.pdf", {"file": "7;8"}),
        ("{{ row['the files'] }}", {"the files": "invoices/7.pdf;invoices/8.pdf"}),
        ("{{ folder }}/{{ file | lower }}", {"folder": "invoices", "file": "7.PDF;8.PDF"}),
    ],
)
def test_cell_may_name_several_files(folder, path, fields):
    message = message_for(folder, path, fields)
    assert names_and_content(message) == [("7.pdf", b"%PDF seven"), ("8.pdf", b"%PDF eight")]


def test_each_of_several_files_must_be_there(folder):
    composer = Composer(campaign_of(text="x", row_attachments=(of(folder, "invoices/{{ file }}"),)), run_id="run")
    with pytest.raises(TemplateError, match=r"'invoices/9\.pdf' is not there"):
        composer.check(row(file="7.pdf;9.pdf"))


def test_file_whose_name_has_a_semicolon_is_one(folder):
    (folder / "7.pdf;8.pdf").write_bytes(b"both")
    assert names_and_content(message_for(folder, "{{ file }}", {"file": "7.pdf;8.pdf"})) == [("7.pdf;8.pdf", b"both")]


def test_cell_of_separators_alone_names_no_file(folder):
    composer = Composer(campaign_of(text="x", row_attachments=(of(folder, "{{ file }}"),)), run_id="run")
    with pytest.raises(TemplateError):
        composer.check(row(file=" ; "))


def test_files_without_content_are_reported(folder):
    (folder / "empty.pdf").touch()
    composer = Composer(campaign_of(text="x", row_attachments=(of(folder, "{{ file }}"),)), run_id="run")
    tried = composer.check(row(file="empty.pdf;inside.pdf"))
    assert (tried.files_size, tried.empty_files) == (10, ("empty.pdf",))
