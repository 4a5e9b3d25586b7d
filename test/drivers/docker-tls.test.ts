/** Docker over TLS: a real dockerd with --tlsverify, and everything that one can get wrong. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dockerDriver } from '../../src/drivers/docker.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { errorLine } from '../../src/errors.ts'
import { Authority, type Tls } from '../support/certificates.ts'
import { type Daemon, findOnPath, startDaemon } from '../support/docker-daemon.ts'
import { hasProgram, requirePart } from '../support/parts.ts'
import { freePort, nodeSpec } from '../support/rank.ts'
import { failure, never } from './conformance.ts'

const parts = findOnPath('dockerd') !== null && hasProgram('openssl')

describe.skipIf(!requirePart('dockerd and openssl', parts))('docker over TLS', () => {
  let directory: string
  let daemons: readonly Daemon[] = []
  let client: Tls
  let stranger: Tls
  let secureAt: string
  let plainAt: string
  let elsewhere: string

  const driver = (docker: string, tls?: Tls): Driver => {
    const settings = { address: '127.0.0.5', docker, ...(tls === undefined ? {} : { tls }) }
    return dockerDriver({ node: nodeSpec('far', settings), simulatorImage: 'unused' })
  }
  const said = async (docker: string, tls?: Tls): Promise<string> =>
    errorLine(await failure(driver(docker, tls).list(never)))

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'pt-'))
    const [secure, plain] = [await freePort('127.0.0.5'), await freePort('127.0.0.5')]
    secureAt = `tcp://127.0.0.5:${secure}`
    plainAt = `tcp://127.0.0.5:${plain}`
    elsewhere = `tcp://127.0.0.6:${secure}`
    const authority = new Authority(join(directory, 'ca'))
    client = authority.sign('client', [])
    stranger = new Authority(join(directory, 'other')).sign('stranger', [])
    const server = authority.sign('server', ['IP:127.0.0.5'])
    const options = ['--tlsverify', '--tlscacert', server.ca, '--tlscert', server.cert]
    daemons = await Promise.all([
      startDaemon({
        directory: join(directory, 'secure'),
        hosts: [secureAt, elsewhere],
        options: [...options, '--tlskey', server.key],
      }),
      startDaemon({ directory: join(directory, 'plain'), hosts: [plainAt] }),
    ])
  }, 120_000)

  afterAll(async () => {
    await Promise.all(daemons.map((daemon) => daemon.stop()))
    rmSync(directory, { recursive: true, force: true })
  }, 120_000)

  test('with the right certificates', async () => {
    expect((await driver(secureAt, client).facts(never)).engine).toMatch(/^Docker Engine \d/)
    expect(await driver(secureAt, client).list(never)).toEqual([])
  })

  test('an authority that we do not know', async () => {
    const tls = { ...client, ca: stranger.ca }
    expect((await failure(driver(secureAt, tls).list(never))).code).toBe('node_tls')
    expect(await said(secureAt, tls)).toBe(
      `node far: Docker at ${secureAt}: the certificate is not signed by tls.ca`,
    )
  })

  test('a certificate for another address', async () => {
    expect(await said(elsewhere, client)).toContain(
      'its certificate is for another name or address',
    )
  })

  test('a client certificate that the daemon does not accept', async () => {
    const tls = { ...client, cert: stranger.cert, key: stranger.key }
    expect((await failure(driver(secureAt, tls).list(never))).code).toBe('node_tls')
    expect(await said(secureAt, tls)).toContain('it refused our certificate')
  })

  test('plain HTTP to the TLS port, and the reverse', async () => {
    expect((await failure(driver(secureAt).list(never))).code).toBe('node_tls')
    expect(await said(secureAt)).toContain('it speaks TLS; give `tls: { ca, cert, key }`')
    expect((await failure(driver(plainAt, client).list(never))).code).toBe('node_tls')
    expect(await said(plainAt, client)).toContain('it does not speak TLS; leave `tls` out')
  })

  test('PEM files that are missing, no PEM, or do not belong together', async () => {
    const missing = join(directory, 'none.pem')
    expect(await said(secureAt, { ...client, key: missing })).toBe(
      `node far: cannot read tls.key ${missing} (ENOENT)`,
    )
    const text = join(directory, 'text.pem')
    writeFileSync(text, 'this is no certificate')
    expect(await said(secureAt, { ...client, cert: text })).toContain('is not a PEM file')
    const mixed = { ...client, key: stranger.key }
    expect(await said(secureAt, mixed)).toContain('tls.cert and tls.key do not belong together')
  })

  test('a file that appears later is read then', async () => {
    const late = join(directory, 'late.pem')
    const far = driver(secureAt, { ...client, ca: late })
    expect((await failure(far.list(never))).code).toBe('node_tls')
    writeFileSync(late, readFileSync(client.ca))
    expect(await far.list(never)).toEqual([])
  })
})
