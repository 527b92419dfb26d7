"""Content credentials: what they tell, what they notice, who signs; nobody else is asked."""

import datetime
import io
import json
import multiprocessing
import os
import socket
import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import stillspeak
from stillspeak.errors import ConfigError, InputError, OutputError
from stillspeak.media.marks import certificates
from stillspeak.media.marks.certificates import config_folder, own_root
from stillspeak.media.marks.credentials import read_credentials
from stillspeak.media.marks.inspection import inspect_file
from stillspeak.media.marks.marking import Marking, Marks
from stillspeak.media.marks.origin import Origin, Source, describe_image, describe_speech
from stillspeak.media.marks.signing import GENERATION, NO_NETWORK, find_signer
from stillspeak.media.video import iter_frames, probe_video, read_clip
from stillspeak.media.video_writer import write_video
from support.animate import portrait, speech
from support.marks import flipped, origin, sign_copy, speaking, speaking_photo

PEM = serialization.Encoding.PEM


def written(path: Path, marks: Marks | None, frames=None) -> Path:
    write_video(path, speaking(5) if frames is None else frames, audio=speech(0.2), marks=marks)
    return path


@pytest.fixture(scope="module")
def signed(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("signed") / "a.mp4", Marks(origin(7)))


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty configuration folder."""
    monkeypatch.setenv("STILLSPEAK_CONFIG", str(tmp_path / "own"))
    return tmp_path / "own"


# --- what is told -------------------------------------------------------------------------------


def test_a_video_tells_how_it_was_made(signed):
    found = inspect_file(signed)
    assert found.verdict == "intact"
    told = found.credentials
    assert told.intact and told.trusted and told.self_made
    assert told.tool == f"stillspeak {stillspeak.__version__}"
    assert told.actions == ("c2pa.created", "c2pa.watermarked.bound")
    assert told.source_types == ("trainedAlgorithmicMedia",)
    assert (told.model, told.model_sha256) == ("alive", 64 * "a")
    assert [(one["title"], one["sha256"]) for one in told.ingredients] == [
        ("the still", f"{7:064x}"),
        ("the speech", 64 * "b"),
    ]
    assert {one["relationship"] for one in told.ingredients} == {"inputTo"}
    assert told.watermark == found.watermark.identifier == origin(7).identifier
    assert told.problems == () and told.signed_at is None


def test_the_settings_are_told_too(signed):
    import c2pa

    with signed.open("rb") as file, c2pa.Reader("video/mp4", file) as reader:
        report = json.loads(reader.json())
    manifest = report["manifests"][report["active_manifest"]]
    (told,) = [one["data"] for one in manifest["assertions"] if one["label"] == GENERATION]
    assert told["settings"] == {"seed": 7}
    assert told["watermark"]["identifier"] == f"{origin(7).identifier:08x}"


def test_every_speech_is_told(tmp_path):
    two = replace(origin(1), others={1: Source(64 * "c", "samples"), 2: None})
    told = inspect_file(written(tmp_path / "a.mp4", Marks(two))).credentials
    assert [(one["title"], one["sha256"]) for one in told.ingredients][1:] == [
        ("the speech", 64 * "b"),
        ("the speech of face 1", 64 * "c"),
    ]
    assert told.watermark == two.identifier != origin(1).identifier
    other = replace(two, others={2: Source(64 * "c", "samples")})
    assert two.identifier != other.identifier


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a"])
def test_every_format_with_a_place_for_them_has_them(tmp_path, name):
    found = inspect_file(written(tmp_path / name, Marks(origin(1))))
    assert (found.verdict, found.watermark.present) == ("intact", True)


def test_a_webm_has_the_watermark_alone(tmp_path):
    found = inspect_file(written(tmp_path / "a.webm", Marks(origin(1))))
    assert (found.verdict, found.credentials) == ("re-encoded", None)
    assert found.watermark.identifier == origin(1).identifier


def test_pictures_and_sound_are_those_of_the_file_without_credentials(tmp_path, signed):
    plain = written(tmp_path / "plain.mp4", Marks(origin(7), credentials=False))
    for one, two in zip(iter_frames(signed), iter_frames(plain), strict=True):
        assert np.array_equal(one, two)
    assert np.array_equal(read_clip(signed)[1], read_clip(plain)[1])
    assert probe_video(signed).fps == probe_video(plain).fps
    assert signed.stat().st_size - plain.stat().st_size < 20_000


def test_without_marks_there_are_none(tmp_path):
    found = inspect_file(written(tmp_path / "a.mp4", None))
    assert found.verdict == "unmarked" and found.credentials is None
    only = inspect_file(written(tmp_path / "b.mp4", Marks(origin(), watermark=False)))
    assert only.verdict == "intact" and only.credentials.watermark is None
    assert "c2pa.watermarked.bound" not in only.credentials.actions


def test_frames_too_small_for_a_watermark_are_signed_all_the_same(tmp_path):
    tiny = [np.full((32, 40, 3), level, np.uint8) for level in range(5)]
    found = inspect_file(written(tmp_path / "a.mp4", Marks(origin()), tiny))
    assert found.verdict == "intact"
    assert not found.watermark.present and found.credentials.watermark is None


def test_identifiers_follow_from_all_that_is_known():
    assert origin(1).identifier == origin(1).identifier != origin(2).identifier
    other = Origin("alive", 64 * "a", speech=Source(64 * "b", "samples"), settings={"seed": 1})
    assert other.identifier != origin(1).identifier
    assert Origin().identifier != Origin().identifier  # random where nothing is known


# --- changes ------------------------------------------------------------------------------------


def test_one_bit_turned_anywhere_is_noticed(signed):
    data = signed.read_bytes()
    places = {
        "picture": data.index(b"mdat") + 600,
        "sound": len(data) - 10,
        "claim": data.index(b"org.stillspeak") + 60,
        "signature": data.index(b"c2cs") + 400,
    }
    for what, place in places.items():
        found = inspect_file(flipped(signed, place))
        assert found.verdict == "tampered", what
        assert found.credentials.problems, what


def test_encoded_again_the_watermark_is_left(tmp_path):
    first = written(tmp_path / "a.mp4", Marks(origin(7)), speaking_photo())
    copy = tmp_path / "again.mp4"
    write_video(copy, iter_frames(first), crf=23)
    found = inspect_file(copy)
    assert found.verdict == "re-encoded"
    assert found.watermark.identifier == origin(7).identifier


def test_credentials_that_name_another_watermark_are_not_believed(tmp_path):
    plain = written(tmp_path / "plain.mp4", Marks(origin(1), credentials=False))
    lie = tmp_path / "lie.mp4"
    sign_copy(plain, lie, origin(2), origin(2).identifier)
    found = inspect_file(lie)
    assert found.credentials.intact and found.verdict == "tampered"
    assert "another watermark" in found.summary


def test_one_frame_of_a_folder_without_credentials_is_noticed(tmp_path):
    folder = written(tmp_path / "frames", Marks(origin(1)))
    PIL.Image.fromarray(speaking()[0]).save(folder / "000002.png")
    found = inspect_file(folder)
    assert found.verdict == "tampered"
    assert found.credentials.problems == ("1 of 5 frames have no credentials",)


def test_what_is_no_picture_or_video_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.mp4").write_text("words, nothing but words")
    for name in ("empty", "a.mp4", "nowhere.mp4"):
        with pytest.raises(InputError, match=name):
            inspect_file(tmp_path / name)


# --- the still's own credentials ----------------------------------------------------------------


def signed_picture() -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(portrait()).save(file, "PNG")
    return Marking(Marks(origin(3), watermark=False), ".png").sign_bytes(file.getvalue(), "a.png")


def test_credentials_of_the_still_are_kept(tmp_path):
    data = signed_picture()
    still = describe_image(data, portrait())
    assert still.signed == data
    found = inspect_file(written(tmp_path / "a.mp4", Marks(origin(1, still))))
    assert found.verdict == "intact"
    assert {one["title"]: one["credentials"] for one in found.credentials.ingredients} == {
        "the still": True,
        "the speech": False,
    }
    # They are inside as a whole, with what the still was made from.
    assert (tmp_path / "a.mp4").read_bytes().count(b"org.stillspeak.generation") >= 2


def test_broken_credentials_of_the_still_are_no_hindrance(tmp_path):
    data = bytearray(signed_picture())
    place = data.index(b"jumd")
    data[place : place + 4] = b"junk"
    still = describe_image(bytes(data), portrait())
    assert still.signed == bytes(data)
    found = inspect_file(written(tmp_path / "a.mp4", Marks(origin(1, still))))
    assert found.verdict == "intact"
    titles = sorted(one["title"] for one in found.credentials.ingredients)
    assert titles == ["the speech", "the still"]


def test_sources_are_named_by_their_bytes(tmp_path):
    import hashlib

    data = signed_picture()
    (tmp_path / "a.png").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    for source in (data, tmp_path / "a.png", str(tmp_path / "a.png")):
        told = describe_image(source, portrait())
        assert (told.sha256, told.kind, told.format) == (digest, "file", "image/png")
    assert describe_image(portrait(), portrait()).kind == "pixels"
    assert describe_speech((speech(0.1), 16_000), speech(0.1)).kind == "samples"
    assert describe_speech(tmp_path / "gone.wav", speech(0.1)) is None


# --- who signs ----------------------------------------------------------------------------------


def test_a_certificate_is_made_once_and_kept_for_its_owner_alone(home):
    first, second = find_signer(), find_signer()
    assert first == second and first.self_made
    assert sorted(path.name for path in home.iterdir()) == [".lock", "identity.pem", "root.pem"]
    if os.name == "posix":
        assert stat.S_IMODE((home / "identity.pem").stat().st_mode) == 0o600
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert (home / "root.pem").read_text() == own_root()
    assert "KEY" not in (home / "root.pem").read_text()
    chain = x509.load_pem_x509_certificates(first.chain.encode())
    assert len(chain) == 2 and chain[0].issuer == chain[1].subject
    assert "PRIVATE" not in repr(first)


def test_it_says_nothing_about_the_machine_or_its_user(home):
    import getpass

    chain = find_signer().chain.encode()
    told = " ".join(one.subject.rfc4514_string() for one in x509.load_pem_x509_certificates(chain))
    assert socket.gethostname() not in told
    assert getpass.getuser() not in told.replace("root of installation", "")


def _sign_once(folder: str) -> str:
    os.environ["STILLSPEAK_CONFIG"] = folder
    return find_signer().chain


@pytest.mark.e2e
def test_many_processes_make_one_certificate(home):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        chains = pool.map(_sign_once, [str(home)] * 6, chunksize=1)
    assert set(chains) == {find_signer().chain}
    assert sorted(path.name for path in home.iterdir()) == [".lock", "identity.pem", "root.pem"]


def test_one_that_came_first_is_taken(home, monkeypatch):
    """The other process keeps its certificate between our look and our turn."""
    other = certificates._make_identity()
    real = certificates.claim

    def late(folder, busy):
        certificates._keep_identity(folder, other)
        return real(folder, busy)

    monkeypatch.setattr(certificates, "claim", late)
    assert find_signer().chain == other.chain


def test_many_processes_replace_an_expired_one_by_one(home, kill, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "_YEARS", 0)
        old = find_signer().chain
    left = home / ".stillspeak.0123abcd.partial"
    left.mkdir()
    (left / "identity.pem").write_text("what a killed process left, with a key in it")
    targets = [tmp_path / f"{number}.pem" for number in range(4)]
    runs = [kill.start("sign_once", home, target, folder=home) for target in targets]
    assert [run.finish() for run in runs] == [0] * 4
    assert {target.read_text() for target in targets} == {find_signer().chain} != {old}
    assert (home / "root.pem").read_text() == own_root()
    assert not left.exists()


def test_an_expired_one_is_replaced(home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "_YEARS", 0)
        old = find_signer().chain
    new = find_signer().chain
    assert new != old and find_signer().chain == new


def test_where_nothing_can_be_kept_it_lives_as_long_as_the_process(home, monkeypatch):
    home.write_text("a file where the folder should be")
    first, second = find_signer(), find_signer()
    assert first == second and first.self_made
    assert own_root() is None


def test_a_damaged_one_is_said(home):
    find_signer()
    (home / "identity.pem").write_text("-----BEGIN CERTIFICATE-----\nnone\n")
    with pytest.raises(ConfigError, match=r"identity\.pem: .*damaged; delete the file"):
        find_signer()


def test_another_installation_finds_it_intact_but_does_not_know_the_signer(signed, home):
    found = inspect_file(signed)
    assert found.verdict == "intact" and not found.credentials.trusted
    find_signer()
    assert inspect_file(signed, trust=own_root()).verdict == "untrusted"


def organisation(folder: Path, key=None, *, usage=True, password=None, name="Example e.V."):
    """Certificate chain, key and root of an organisation, as files."""
    folder.mkdir(exist_ok=True)
    key = key or ec.generate_private_key(ec.SECP256R1())
    root_key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    names = [
        x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, common),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, name),
            ]
        )
        for common in ("root", "press office")
    ]
    made = []
    for own, public in enumerate((root_key.public_key(), key.public_key())):
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[own])
            .issuer_name(names[0])
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=9))
            .add_extension(x509.BasicConstraints(own == 0, None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    own == 1, False, False, False, False, own == 0, own == 0, False, False
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
                critical=False,
            )
        )
        if own and usage:
            purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, critical=False)
        made.append(builder.sign(root_key, hashes.SHA256()).public_bytes(PEM))
    lock = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    (folder / "root.pem").write_bytes(made[0])
    (folder / "chain.pem").write_bytes(made[1] + made[0])
    (folder / "key.pem").write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, lock)
    )
    return folder / "chain.pem", folder / "key.pem", folder / "root.pem"


@pytest.mark.parametrize(
    ("make", "algorithm"),
    [
        (lambda: ec.generate_private_key(ec.SECP256R1()), "es256"),
        (lambda: ec.generate_private_key(ec.SECP384R1()), "es384"),
        (ed25519.Ed25519PrivateKey.generate, "ed25519"),
        (lambda: rsa.generate_private_key(65537, 2048), "ps256"),
    ],
)
def test_an_organisation_signs_with_its_own(tmp_path, make, algorithm):
    chain, key, root = organisation(tmp_path / "org", make())
    assert find_signer(chain, key).algorithm == algorithm
    path = written(tmp_path / "a.mp4", Marks(origin(), certificate=chain, key=key))
    mine = inspect_file(path)
    assert mine.verdict == "intact" and not mine.credentials.trusted
    assert not mine.credentials.self_made
    assert (mine.credentials.signer, mine.credentials.organisation) == (
        "press office",
        "Example e.V.",
    )
    found = inspect_file(path, trust=root.read_text())
    assert found.verdict == "intact" and found.credentials.trusted


def test_it_may_be_named_by_the_environment_or_a_file(tmp_path, home, monkeypatch):
    chain, key, _ = organisation(tmp_path / "org", password=b"hush")
    home.mkdir()
    (home / "marks.toml").write_text('certificate = "../org/chain.pem"\nkey = "../org/key.pem"\n')
    with pytest.raises(ConfigError, match="STILLSPEAK_KEY_PASSWORD"):
        find_signer()
    monkeypatch.setenv("STILLSPEAK_KEY_PASSWORD", "hush")
    assert not find_signer().self_made
    (home / "marks.toml").unlink()
    assert find_signer().self_made
    monkeypatch.setenv("STILLSPEAK_CERTIFICATE", str(chain))
    with pytest.raises(ConfigError, match="one of the two is missing"):
        find_signer()
    monkeypatch.setenv("STILLSPEAK_KEY", str(key))
    assert not find_signer().self_made


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("certificate = 3", "certificate: give"),
        ("certificates = 'a'", "certificates: give"),
        ("= 3", "not valid TOML"),
        ("timestamp_url = 'ftp://x'", "not an http or https address"),
    ],
)
def test_settings_that_are_none_are_said(home, text, said):
    home.mkdir()
    (home / "marks.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        find_signer()


def test_certificates_that_cannot_sign_are_said_before_the_work(tmp_path):
    chain, key, root = organisation(tmp_path / "a")
    other = organisation(tmp_path / "b")[1]
    with pytest.raises(ConfigError, match="does not belong to the key"):
        find_signer(chain, other)
    with pytest.raises(ConfigError, match="does not belong to the key"):
        find_signer(root, key)
    with pytest.raises(ConfigError, match="holds no certificate"):
        find_signer(key, key)
    with pytest.raises(ConfigError, match="no private key"):
        find_signer(chain, chain)
    with pytest.raises(ConfigError, match="cannot be read"):
        find_signer(tmp_path / "none.pem", key)
    with pytest.raises(ConfigError, match="one of the two is missing"):
        find_signer(chain, None)
    secp = organisation(tmp_path / "c", ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(ConfigError, match="give an EC"):
        find_signer(*secp[:2])
    frames = iter(speaking(5))
    with pytest.raises(ConfigError):
        write_video(tmp_path / "v.mp4", frames, marks=Marks(origin(), certificate=chain, key=other))
    assert next(frames) is speaking(5)[0]  # not one frame was asked for
    assert not (tmp_path / "v.mp4").exists()


def test_a_certificate_for_other_purposes_cannot_sign(tmp_path):
    chain, key, _ = organisation(tmp_path / "org", usage=False)
    with pytest.raises(ConfigError, match="cannot sign content credentials"):
        find_signer(chain, key)


def test_a_signature_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OutputError("no ink")

    monkeypatch.setattr("stillspeak.media.marks.marking.sign", fail)
    with pytest.raises(OutputError, match=r"a\.mp4: its content credentials cannot be made \(no"):
        written(tmp_path / "a.mp4", Marks(origin()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="each system has its own place")
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("STILLSPEAK_CONFIG", ""),
        ("XDG_CONFIG_HOME", "stillspeak"),
        ("HOME", ".config/stillspeak"),
    ],
)
def test_the_folder_is_the_usual_one(tmp_path, monkeypatch, name, place):
    for other in ("STILLSPEAK_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, str(tmp_path))
    assert config_folder() == tmp_path / place


# --- nobody is asked ----------------------------------------------------------------------------


def test_the_network_is_left_alone(tmp_path, home, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    path = written(tmp_path / "a.mp4", Marks(origin()))
    assert inspect_file(path).verdict == "intact"
    assert NO_NETWORK["verify"] == {
        "remote_manifest_fetch": False,
        "ocsp_fetch": False,
        "verify_trust": True,
    }
    assert find_signer().timestamp_url is None


def test_a_credential_elsewhere_is_not_fetched(tmp_path):
    """A manifest may be named by an address; a server there would learn who looks."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/manifest.c2pa"
        xmp = (
            '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
            '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
            f'xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{url}"/></rdf:RDF>'
            '</x:xmpmeta><?xpacket end="w"?>'
        )
        file = tmp_path / "a.png"
        texts = PIL.PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", xmp)
        PIL.Image.fromarray(portrait()).save(file, "PNG", pnginfo=texts)
        assert read_credentials(file) is None or not read_credentials(file).intact
        with pytest.raises(TimeoutError):
            server.accept()


def test_marking_of_what_has_no_place_for_credentials_makes_no_certificate(home):
    assert Marking(Marks(origin()), ".webm").signer is None
    assert not home.exists()
