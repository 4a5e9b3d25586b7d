/** The texts that Docker, runc, ssh and registries were seen to say, and what we make of them. */
import { describe, expect, test } from 'vitest'
import { EngineError, explain, lacksGpuRuntime, shorten } from '../../src/drivers/docker-errors.ts'
import { SshError } from '../../src/drivers/docker-ssh.ts'
import type { ErrorCode } from '../../src/errors.ts'
import { errorLine, PenstockError } from '../../src/errors.ts'

const ask = {
  place: { node: 'h20-8a', replica: 'r1-0', rank: 1 },
  endpoint: 'tcp://10.0.0.21:2376',
  image: 'team/engine:1',
}

/** As dockerode makes them. */
const answered = (statusCode: number, reason: string, said: string): Error =>
  Object.assign(new Error(`(HTTP code ${statusCode}) ${reason} - ${said} `), { statusCode })
const coded = (code: string, message = code): Error => Object.assign(new Error(message), { code })

const OCI = 'OCI runtime create failed: container_linux.go:380: starting container process caused: '
const RUNC =
  'failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: '

const table: readonly (readonly [string, Error, ErrorCode, string])[] = [
  ['away', coded('ECONNREFUSED'), 'node_unreachable', 'nothing listens there; is dockerd running?'],
  ['no permission', coded('EACCES'), 'node_unreachable', 'add this user to the group docker'],
  ['no socket', coded('ENOENT'), 'node_unreachable', 'is Docker installed and running?'],
  ['no such host', coded('ENOTFOUND'), 'node_unreachable', 'the host name is unknown'],
  ['DNS silent', coded('EAI_AGAIN'), 'node_unreachable', 'DNS does not answer'],
  ['silence', coded('ETIMEDOUT'), 'node_unreachable', 'the host does not answer'],
  ['cut', coded('ECONNRESET', 'socket hang up'), 'node_unreachable', 'the connection broke'],
  ['hung up', new Error('socket hang up'), 'node_unreachable', 'the connection broke'],
  ['unknown CA', coded('SELF_SIGNED_CERT_IN_CHAIN'), 'node_tls', 'not signed by tls.ca'],
  ['expired', coded('CERT_HAS_EXPIRED'), 'node_tls', 'has expired'],
  [
    'plain to TLS',
    answered(400, 'bad parameter', 'Client sent an HTTP request to an HTTPS server.'),
    'node_tls',
    'it speaks TLS',
  ],
  [
    'memlock, runc 1.1',
    answered(
      400,
      'bad parameter',
      `${RUNC}error during container init: error setting rlimits for ready process: error setting rlimit type 8: operation not permitted: unknown`,
    ),
    'container_refused',
    'the engine may not set ulimit memlock; set `container: { memlock: default }`',
  ],
  [
    'nofile',
    answered(500, 'server error', `${OCI}error setting rlimit type 7: operation not permitted`),
    'container_refused',
    'ulimit nofile',
  ],
  [
    'no NVIDIA runtime',
    answered(
      500,
      'server error',
      'could not select device driver "nvidia" with capabilities: [[gpu]]',
    ),
    'container_refused',
    'install nvidia-container-toolkit',
  ],
  [
    'no NVIDIA driver',
    answered(
      500,
      'server error',
      `${RUNC}error during container init: error running prestart hook #0: exit status 1, stdout: , stderr: nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown`,
    ),
    'container_refused',
    'the NVIDIA driver is not loaded',
  ],
  [
    'fewer GPUs',
    answered(500, 'server error', 'nvidia-container-cli: device error: 5: unknown device: unknown'),
    'container_refused',
    'the node has fewer GPUs than its inventory says',
  ],
  [
    'a missing device',
    answered(
      500,
      'server error',
      'error gathering device information while adding custom device "/dev/infiniband": no such file or directory',
    ),
    'container_refused',
    'a device of `container.devices` is missing',
  ],
  [
    'no such image',
    answered(404, 'no such container', 'No such image: team/engine:1'),
    'image_missing',
    'image team/engine:1 is not on this node',
  ],
  [
    'no such repository',
    answered(
      404,
      'unexpected',
      "pull access denied for team/engine, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
    ),
    'image_missing',
    'needs a login',
  ],
  [
    'no such tag',
    new EngineError('manifest for team/engine:1 not found: manifest unknown: manifest unknown'),
    'image_missing',
    'its registry has no such tag',
  ],
  [
    'registry name unknown',
    answered(
      500,
      'server error',
      'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host',
    ),
    'image_missing',
    'its registry cannot be reached',
  ],
  [
    "the registry's certificate, not the engine's",
    new EngineError('Get "https://r.local/v2/": x509: certificate has expired or is not yet valid'),
    'image_missing',
    'its registry cannot be reached',
  ],
  [
    'disk full',
    new EngineError('write /var/lib/docker/tmp/x: no space left on device'),
    'image_missing',
    'the disk',
  ],
  [
    'limit',
    new EngineError('toomanyrequests: You have reached your limit'),
    'image_missing',
    'limits',
  ],
  [
    'ssh key',
    new SshError('ops@h: Permission denied (publickey).'),
    'node_unreachable',
    'our keys',
  ],
  [
    'ssh and no group docker',
    new SshError(
      'permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock',
    ),
    'node_unreachable',
    'add it to group docker',
  ],
  ['ssh, unheard of', new SshError('kex_exchange: odd'), 'node_unreachable', 'kex_exchange: odd'],
  [
    'unheard of',
    answered(500, 'server error', 'something odd'),
    'container_refused',
    'something odd',
  ],
]

describe('one readable line', () => {
  test.each(table)('%s', (_name, error, code, words) => {
    const explained = explain(error, ask)
    expect(explained.code).toBe(code)
    const line = errorLine(explained)
    expect(line).toContain(words)
    expect(line.startsWith('node h20-8a, r1-0, rank 1: ')).toBe(true)
    expect(line).not.toMatch(/\n|HTTP code|undefined/)
    expect(line.length).toBeLessThan(600)
  })

  test('what is explained stays as it is', () => {
    const error = new PenstockError('port_taken', 'taken')
    expect(explain(error, ask)).toBe(error)
  })

  test('a Docker without GPUs is told from all else', () => {
    expect(lacksGpuRuntime(new Error('could not select device driver "nvidia"'))).toBe(true)
    expect(lacksGpuRuntime(new Error('device error'))).toBe(false)
    expect(lacksGpuRuntime('text')).toBe(false)
  })
})

describe('nested runc text', () => {
  test.each([
    [
      `${RUNC}exec: "x": executable file not found in $PATH: unknown`,
      'exec: "x": executable file not found in $PATH',
    ],
    [`${OCI}process_linux.go:545: container init caused: odd\nthing: unknown`, 'odd thing'],
    ['plain', 'plain'],
  ])('%s', (text, short) => expect(shorten(text)).toBe(short))

  test('is never endless', () => expect(shorten('x'.repeat(9999))).toHaveLength(300))
})
