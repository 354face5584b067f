"""What the daemon is made of: adapters of the settings, and services of the adapters."""

from __future__ import annotations

import functools

from privyseal.verify.keys import load_public_key, public_key_sha256

from privyseald.adapters.alarm import LoudAlarm
from privyseald.adapters.backup_archive import BackupArchiver, Quorum
from privyseald.adapters.checkpoint_file import CheckpointFile
from privyseald.adapters.clock import Steps, clock
from privyseald.adapters.log_notes import LogNotes
from privyseald.adapters.peers import CaFile, CertificatePeers
from privyseald.adapters.policies_cedar import CedarPolicies, builtin_text, schema_text
from privyseald.adapters.policies_trial import try_out
from privyseald.adapters.spool import FileSpool
from privyseald.adapters.store_sql import SqlStore
from privyseald.config import RESTORED, Settings
from privyseald.gateway.check_ins import CheckInCounter
from privyseald.keyholder.log_keyholder import LogKeyholder
from privyseald.keyholder.supervisor import KeyholderPool
from privyseald.model.schemes import WrappedKey
from privyseald.rpc.access_servicer import AccessServicer
from privyseald.rpc.app_servicer import AppServicer
from privyseald.rpc.approval_servicer import ApprovalServicer
from privyseald.rpc.backup_servicer import BackupServicer
from privyseald.rpc.calls import Gate
from privyseald.rpc.key_servicer import KeyServicer
from privyseald.rpc.log_servicer import LogServicer
from privyseald.rpc.native_servicer import NativeServicer
from privyseald.rpc.policy_servicer import PolicyServicer
from privyseald.rpc.release_servicer import ReleaseServicer
from privyseald.rpc.rotation_servicer import RotationServicer
from privyseald.rpc.signing_servicer import SigningServicer
from privyseald.services.access import Access
from privyseald.services.archives import Archives
from privyseald.services.audit import Audit
from privyseald.services.backups import Backups
from privyseald.services.ceremonies import Ceremonies
from privyseald.services.certificates import CertifiedKeys
from privyseald.services.channels import Channels
from privyseald.services.consent import Consent
from privyseald.services.credentials import Credentials
from privyseald.services.field_status import FieldStatus
from privyseald.services.grants import Grants
from privyseald.services.keys import Keys
from privyseald.services.leaves import Leaves
from privyseald.services.native import NativeBuilds
from privyseald.services.policies import TeamPolicies
from privyseald.services.refusals import Refusals
from privyseald.services.releases import Releases
from privyseald.services.renewal import Renewal
from privyseald.services.rotations import Rotations
from privyseald.services.signing import Signing
from privyseald.services.sweeping import Sweeper
from privyseald.services.versions import Versions
from privyseald.services.workloads import Workloads
from privyseald.setup import log_key_identity, log_verifier
from privyseald.wiring import custody, tokens


class Adapters:
    """What reaches the outside: keyholders, the store, files, certificates.

    Args:
        settings: The daemon's.

    Raises:
        OSError: If a file of the data directory cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        data = settings.data
        spki = (data / "log.spki").read_bytes()
        digest = public_key_sha256(load_public_key(spki))
        log_key = WrappedKey(log_key_identity(digest), (data / "log.key").read_bytes())
        self.alarm = LoudAlarm()
        self.kek = custody(settings)
        self.log_keyholder = LogKeyholder(self.kek, log_key)
        self.verifier = log_verifier(settings, spki)
        self.notes = LogNotes(self.log_keyholder, self.verifier)
        self.keyholder = KeyholderPool(
            *(self.kek, settings.keyholder_count),
            token=settings.hsm is not None,
            sessions=settings.hsm.sessions if settings.hsm is not None else 0,
        )
        self.kept = CheckpointFile(
            settings.file(settings.last_checkpoint), self.verifier, data / RESTORED
        )
        self.store = SqlStore(
            settings.database_url,
            clock=clock,
            sign_checkpoint=self.notes.checkpoint,
            origin=settings.log_origin,
            kept=self.kept,
            steps=Steps(settings.clock_leeway),
        )
        own = CaFile(data / "tls/ca.pem")
        domains = {d.name: CaFile(settings.file(d.bundle)) for d in settings.trust_domains}
        self.peers = CertificatePeers(own, domains, clock)
        chosen = settings.backup
        self.archiver = BackupArchiver(
            *(data, settings.database_url, settings.log_origin),
            Quorum(chosen.keys, chosen.threshold) if chosen else None,
            seal=self.kek.seal_backup,
            sign=self.notes.backup,
            clock=clock,
        )


class Services:
    """The use cases: one of each, whatever the number of ports, since they keep caches and counts.

    Args:
        settings: The daemon's.
        adapters: What they reach the outside with.
    """

    def __init__(self, settings: Settings, adapters: Adapters) -> None:
        store, keyholder, alarm = adapters.store, adapters.keyholder, adapters.alarm
        policies = CedarPolicies(settings.approvals)
        self.refusals = Refusals(store, clock)
        self.access = access = Access(store, policies, clock, self.refusals)
        self.policies = TeamPolicies(
            *(store, access, policies, clock),
            try_out=functools.partial(try_out, approvals=settings.approvals),
        )
        self.credentials = Credentials(store, access, clock)
        self.workloads = Workloads(store, access, tokens(settings), clock, self.refusals)
        self.grants = Grants(store, access, clock, self.workloads.issuer)
        self.consent = Consent(store, access, clock, needed=settings.approvals, alarm=alarm)
        self.gate = Gate(
            *(access, adapters.peers),
            principal_rate=settings.principal_rate,
            app_rate=settings.app_rate,
        )
        renewal = Renewal(store, keyholder)
        makes = CertifiedKeys(store, keyholder, clock, alarm)
        self.keys = Keys(store, access, makes, clock)
        self.versions = Versions(store, access, makes, clock)
        self.ceremonies = Ceremonies(store, access)
        self.rotations = Rotations(
            *(store, access, keyholder, clock), versions=self.versions, renewal=renewal
        )
        self.field = FieldStatus(store, access, clock)
        self.builds = NativeBuilds(store, access, clock, renewal.cover)
        self.sweeper = Sweeper(store, keyholder, clock, alarm)
        self.leaves = Leaves(*(store, keyholder, clock), makes=makes, renewal=renewal, alarm=alarm)
        self.check_ins = CheckInCounter(store, clock)
        self.signing = Signing(
            *(store, access, keyholder, clock),
            origin=settings.log_origin,
            gateway=settings.device_url,
        )
        self.archives = Archives(store, access, keyholder, FileSpool(settings.data))
        self.releases = Releases(
            *(store, access, clock, adapters.verifier),
            artifacts=f"{settings.device_url}/artifacts/",
        )
        self.channels = Channels(store, access, clock, cover=renewal.cover)
        self.audit = Audit(store, access)
        self.backups = Backups(store, access, adapters.archiver)


def servicers_of(
    settings: Settings, adapters: Adapters, services: Services, import_note: str
) -> tuple[object, ...]:
    """Return what answers gRPC calls.

    Args:
        settings: The daemon's.
        adapters: Have the log's key.
        services: What the calls call.
        import_note: The signed note of the key that private keys are sealed for.
    """
    gate, its = services.gate, services
    return (
        AppServicer(gate, its.keys),
        KeyServicer(gate, its.keys, its.versions, its.ceremonies, import_note=import_note),
        SigningServicer(gate, its.signing, its.archives),
        ReleaseServicer(gate, its.releases, its.channels),
        LogServicer(gate, its.audit, adapters.verifier.vkey()),
        AccessServicer(gate, its.credentials, its.grants, its.workloads),
        ApprovalServicer(gate, its.consent, clock),
        PolicyServicer(gate, its.policies, schema_text(), builtin_text(settings.approvals)),
        RotationServicer(gate, its.rotations, its.field),
        NativeServicer(gate, its.builds),
        BackupServicer(gate, its.backups),
    )
