/**
 * Whatever goes wrong on the way to a Docker engine, in one line that says what to do. The texts
 * matched here were seen on Docker 20.10 to 28 and in Node 24's TLS (OpenSSL 3).
 */
import { type ErrorCode, type ErrorPlace, PenstockError } from '../errors.ts'
import { SshError } from './docker-ssh.ts'

export type DockerAsk = {
  readonly place: ErrorPlace
  /** As in the inventory, for instance `tcp://10.0.0.21:2376`. */
  readonly endpoint: string
  readonly image?: string
}

type Verdict = readonly [ErrorCode, string]

/** What the engine wrote into the stream of an answer that had begun well. */
export class EngineError extends Error {}

export const explain = (error: unknown, ask: DockerAsk): PenstockError => {
  if (error instanceof PenstockError) return error
  const text = error instanceof Error ? error.message : String(error)
  // An engine that answers may complain about its registry's DNS and TLS; that is not ours.
  const answered = error instanceof EngineError || statusOf(error) !== null
  const [code, message] =
    (error instanceof SshError ? ofSsh(text, ask) : null) ??
    (answered ? ofPlain(text, ask) : ofWay(codeOf(error), text, ask)) ??
    ofEngine(text, ask)
  return new PenstockError(code, message, ask.place, error)
}

/** The HTTP status of dockerode's error; null for all others. */
export const statusOf = (error: unknown): number | null =>
  error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number'
    ? error.statusCode
    : null

const codeOf = (error: unknown): string => {
  if (!(error instanceof Error) || !('code' in error)) return ''
  // A name with several addresses fails with one AggregateError that carries the first code.
  return String(error.code)
}

const ofSsh = (said: string, { endpoint }: DockerAsk): Verdict | null => {
  const last = said.split('\n').at(-1)?.trim() ?? said
  const table: readonly (readonly [RegExp, string])[] = [
    [/Permission denied/i, 'the host refused our keys; put one in authorized_keys or ssh-agent'],
    [
      /Host key verification failed|REMOTE HOST IDENTIFICATION/i,
      'its host key is unknown or has changed; connect once by hand: ssh <host>',
    ],
    [/Could not resolve hostname/i, 'the host name is unknown'],
    [/Connection refused/i, 'nothing listens on the SSH port'],
    [/timed out|No route to host|Network is unreachable/i, 'the host does not answer'],
    [
      /command not found|not found|exit(ed)? .*127/i,
      'no `docker` command there; install docker-ce-cli',
    ],
    [
      /permission denied.*docker|docker\.sock/i,
      'the user may not use Docker; add it to group docker',
    ],
  ]
  // The socket's own refusal names docker.sock, so it is looked at before the login's.
  const ordered = /docker\.sock|docker daemon/i.test(said) ? [...table].reverse() : table
  const hint = ordered.find(([pattern]) => pattern.test(said))?.[1]
  const why = hint === undefined ? last : `${hint} (ssh: ${last})`
  return ['node_unreachable', `Docker at ${endpoint}: ${why}`.slice(0, 400)]
}

const CONNECTION: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there; is dockerd running?',
  ENOENT: 'there is no such socket or program; is Docker installed and running?',
  EACCES: 'permission denied; add this user to the group docker and log in again',
  EPERM: 'not permitted; a firewall rule or a sandbox forbids the connection',
  ENOTFOUND: 'the host name is unknown; check the name or DNS',
  EAI_AGAIN: 'DNS does not answer',
  ETIMEDOUT: 'the host does not answer',
  EHOSTUNREACH: 'no route to the host',
  ENETUNREACH: 'no route to the network',
  EHOSTDOWN: 'the host is down',
  EPIPE: 'the connection broke; was dockerd stopped?',
  ECONNRESET: 'the connection broke; was dockerd stopped, or does it expect TLS?',
}

const ofConnection = (code: string, text: string, { endpoint }: DockerAsk): Verdict | null => {
  const known = CONNECTION[code]
  if (known !== undefined) return ['node_unreachable', `Docker at ${endpoint}: ${known}`]
  // Node says so, without a code, when the peer closes in the middle of an answer.
  if (/socket hang up|aborted|premature close/i.test(text)) {
    return ['node_unreachable', `Docker at ${endpoint}: ${CONNECTION.ECONNRESET}`]
  }
  return null
}

const UNKNOWN_CA = 'the certificate is not signed by tls.ca'
const TLS: readonly (readonly [RegExp, string])[] = [
  [
    /HTTP request to an HTTPS server/i,
    'it speaks TLS; give `tls: { ca, cert, key }` for this node',
  ],
  [
    /wrong version number|packet length too long|EPROTO.*(unknown protocol|record)/i,
    'it does not speak TLS; leave `tls` out, or start dockerd with --tlsverify',
  ],
  [/ERR_TLS_CERT_ALTNAME_INVALID/, 'its certificate is for another name or address'],
  [/CERT_HAS_EXPIRED|certificate has expired/i, 'its certificate has expired'],
  [/CERT_NOT_YET_VALID/, 'its certificate is not valid yet; check the clocks'],
  [
    /alert (.*certificate.*|unknown ca|handshake failure|access denied)/i,
    'it refused our certificate; tls.cert and tls.key must be signed by the CA that dockerd trusts',
  ],
  [/UNABLE_TO|SELF_SIGNED|CERT_SIGNATURE_FAILURE|unable to verify|self.signed/i, UNKNOWN_CA],
  [/KEY_VALUES_MISMATCH|key values mismatch/i, 'tls.cert and tls.key do not belong together'],
  [/PEM|DECODER|no start line|ERR_OSSL/i, 'tls.ca, tls.cert or tls.key is not a PEM file'],
]

const ofWay = (code: string, text: string, ask: DockerAsk): Verdict | null =>
  ofConnection(code, text, ask) ?? ofTls(code, text, ask)

/** dockerd answers plain HTTP on its TLS port with a 400 in plain HTTP. */
const ofPlain = (text: string, ask: DockerAsk): Verdict | null =>
  /HTTP request to an HTTPS server/i.test(text) ? ofTls('', text, ask) : null

const ofTls = (code: string, text: string, { endpoint }: DockerAsk): Verdict | null => {
  const hint = TLS.find(([pattern]) => pattern.test(code) || pattern.test(text))?.[1]
  return hint === undefined ? null : ['node_tls', `Docker at ${endpoint}: ${hint}`]
}

/** Numbers of getrlimit(2) on Linux, as runc prints them. */
const RLIMITS: Readonly<Record<string, string>> = { '3': 'stack', '7': 'nofile', '8': 'memlock' }

const NO_GPU_RUNTIME = /could not select device driver|discover GPU vendor|unresolvable CDI/i
export const lacksGpuRuntime = (error: unknown): boolean =>
  error instanceof Error && NO_GPU_RUNTIME.test(error.message)

const ofEngine = (text: string, { image, endpoint }: DockerAsk): Verdict => {
  if (/setting rlimit/i.test(text)) {
    const name = RLIMITS[/setting rlimit type (\d+)/i.exec(text)?.[1] ?? ''] ?? '(unnamed)'
    const hint = 'set `container: { memlock: default }` on this node'
    const message = `the engine may not set ulimit ${name}; ${hint} (${shorten(text)})`
    return ['container_refused', message]
  }
  if (NO_GPU_RUNTIME.test(text)) {
    const hint = 'Docker there has no NVIDIA runtime; install nvidia-container-toolkit, run '
    return ['container_refused', `${hint}\`nvidia-ctk runtime configure\` and restart Docker`]
  }
  const missing = ofImage(text, image)
  if (missing !== null) return missing
  const hint = HINTS.find(([pattern]) => pattern.test(text))?.[1]
  const short = shorten(text)
  if (hint !== undefined) return ['container_refused', `${hint} (${short})`]
  return ['container_refused', `Docker at ${endpoint} refused: ${short}`]
}

const ofImage = (text: string, image = 'the image'): Verdict | null => {
  if (/pull access denied|unauthorized|authentication required|denied:/i.test(text)) {
    const hint = 'does not exist in its registry or needs a login; pull it on that node by hand'
    return ['image_missing', `image ${image} ${hint}`]
  }
  if (/manifest .*(unknown|not found)|not found: manifest/i.test(text)) {
    return ['image_missing', `image ${image}: its registry has no such tag`]
  }
  if (/toomanyrequests|rate limit/i.test(text)) {
    return ['image_missing', `image ${image}: the registry limits our pulls; log in or wait`]
  }
  if (/no space left on device/i.test(text)) {
    return ['image_missing', `image ${image}: the disk of Docker's data-root is full`]
  }
  if (/no such image/i.test(text)) return ['image_missing', `image ${image} is not on this node`]
  if (
    /dial tcp|lookup .*(no such host|server misbehaving)|registry|TLS handshake|x509/i.test(text)
  ) {
    return ['image_missing', `image ${image}: its registry cannot be reached (${shorten(text)})`]
  }
  return null
}

const HINTS: readonly (readonly [RegExp, string])[] = [
  [
    /gathering device information|add.*custom device/i,
    'a device of `container.devices` is missing',
  ],
  [/nvml error: driver not loaded/i, 'the NVIDIA driver is not loaded on this node'],
  [/unknown device|device error/i, 'the node has fewer GPUs than its inventory says'],
  [/nvidia-container-cli|nvidia-container-runtime/i, 'the NVIDIA runtime failed'],
  [
    /docker-init.*not found|exec: "?docker-init/i,
    'docker-init is missing on this node; install tini',
  ],
  [/privileged|capabilit(y|ies)/i, 'the node forbids it; see `container: { privileged }`'],
  [/executable file not found|no such file or directory.*exec/i, 'the image has no such program'],
  [/invalid mount|mount.*(denied|no such)/i, 'a mount is refused; see `weights` of this node'],
]

/** Frames that runc, containerd and Docker wrap around the sentence that matters. */
const FRAMES = [
  /^\(HTTP code \d+\) [^-]*- /,
  /(OCI runtime (create|exec|start) failed|runc (create|run|exec) failed): /g,
  /(failed to create (task for container|shim task|shim)|Cannot start service [^:]*): /gi,
  /(unable to start container process|error during container init): /g,
  /starting container process caused: /g,
  /[\w.-]+\.go:\d+: (starting container process caused: |container init caused: )?/g,
  /process_linux\.go:\d+: /g,
  /(: unknown)+\s*$/,
] as const

const TEXT_CHARS_MAX = 2000

export const shorten = (text: string): string => {
  // Cut first: the patterns below take time that grows with the square of a long word.
  const line = text.slice(0, TEXT_CHARS_MAX).replace(/\s+/g, ' ')
  const bare = FRAMES.reduce((left, frame) => left.replace(frame, ''), line)
  return bare
    .trim()
    .replace(/: unknown$/, '')
    .slice(0, 300)
}
