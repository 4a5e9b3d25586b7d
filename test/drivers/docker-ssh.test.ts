/** Docker over SSH: a real sshd, the real ssh, a real dockerd behind `docker system dial-stdio`. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dockerDriver } from '../../src/drivers/docker.ts'
import { sshArguments } from '../../src/drivers/docker-ssh.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { answers } from '../../src/drivers/port.ts'
import { errorLine } from '../../src/errors.ts'
import { type Daemon, findOnPath, startDaemon, waitFor } from '../support/docker-daemon.ts'
import { importTestImage, TEST_IMAGE } from '../support/docker-lab.ts'
import { hasProgram, requirePart } from '../support/parts.ts'
import { freePort, nodeSpec, rankSpec } from '../support/rank.ts'
import { collect, ended, FOREVER, failure, never, only } from './conformance.ts'

const ADDRESS = '127.0.0.7'
const user = userInfo().username
const programs = ['dockerd', 'sshd', 'docker'].every((name) => findOnPath(name) !== null)
const parts = programs && hasProgram('ssh') && user === 'root'

const newKey = (path: string): string => {
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', path])
  return readFileSync(`${path}.pub`, 'utf8').trim()
}

describe.skipIf(!requirePart('sshd, ssh, docker and root', parts))('docker over SSH', () => {
  let directory: string
  let daemon: Daemon
  let sshd: ChildProcess
  let port: number
  const opened: Driver[] = []

  const driver = (key: string, over: { known?: string; port?: number; host?: string } = {}) => {
    const config = join(directory, `config-${opened.length}`)
    const known = over.known ?? join(directory, 'known_hosts')
    const lines = [
      ...[`IdentityFile ${join(directory, key)}`, 'IdentitiesOnly yes'],
      ...[`UserKnownHostsFile ${known}`, 'GlobalKnownHostsFile /dev/null'],
      'StrictHostKeyChecking yes',
    ]
    writeFileSync(config, `${lines.join('\n')}\n`)
    const docker = `ssh://${user}@${over.host ?? ADDRESS}:${over.port ?? port}`
    const made = dockerDriver({
      node: nodeSpec('far', { address: ADDRESS, docker }),
      simulatorImage: 'unused',
      sshCommand: ['ssh', '-F', config],
    })
    opened.push(made)
    return made
  }
  const said = async (far: Driver): Promise<string> => {
    const error = await failure(far.list(never))
    expect(error.code).toBe('node_unreachable')
    return errorLine(error)
  }

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'ps-'))
    daemon = await startDaemon({ directory: join(directory, 'docker'), hosts: [] })
    await importTestImage(daemon)
    port = await freePort(ADDRESS)
    const host = newKey(join(directory, 'host'))
    const limited = 'command="no-docker-here system dial-stdio"'
    const keys = [
      newKey(join(directory, 'good')),
      `${limited} ${newKey(join(directory, 'limited'))}`,
    ]
    newKey(join(directory, 'stranger'))
    writeFileSync(join(directory, 'authorized_keys'), `${keys.join('\n')}\n`)
    writeFileSync(join(directory, 'known_hosts'), `[${ADDRESS}]:${port} ${host}\n`)
    const config = [
      ...[`ListenAddress ${ADDRESS}:${port}`, `HostKey ${join(directory, 'host')}`],
      ...[`AuthorizedKeysFile ${join(directory, 'authorized_keys')}`, 'StrictModes no'],
      ...['PasswordAuthentication no', 'UsePAM no', 'PermitRootLogin yes', 'PidFile none'],
      `SetEnv DOCKER_HOST=unix://${join(directory, 'docker', 's')}`,
    ]
    writeFileSync(join(directory, 'sshd_config'), `${config.join('\n')}\n`)
    // Where no init script made it: sshd's own directory for its unprivileged half.
    if (!existsSync('/run/sshd')) mkdirSync('/run/sshd', { mode: 0o755 })
    const command = findOnPath('sshd') ?? 'sshd'
    sshd = spawn(command, ['-D', '-e', '-f', join(directory, 'sshd_config')], { stdio: 'ignore' })
    await waitFor('sshd', 20_000, () => answers(ADDRESS, port, never))
  }, 120_000)

  afterAll(async () => {
    await Promise.all(opened.map((it) => it.close()))
    sshd?.kill('SIGKILL')
    await daemon?.stop()
    rmSync(directory, { recursive: true, force: true })
  }, 120_000)

  test('the whole life of a rank', async () => {
    const far = driver('good')
    expect((await far.facts(never)).engine).toMatch(/^Docker Engine \d/)
    const base = { node: 'far', image: TEST_IMAGE, name: 'penstock-far-0-0' }
    const spec = rankSpec({ ...base, command: ['sh', '-c', `echo hello; ${FOREVER}`] })
    await far.start(spec, never)
    expect(only(await far.list(never)).state).toBe('running')
    expect(await far.logs(spec.name, 5, never)).toBe('hello')
    expect(await collect(far.exec(spec.name, ['echo', 'in'], never))).toEqual(['in'])
    expect(await collect(far.follow(spec.name, 5, never), 1)).toEqual(['hello'])
    await far.stop(spec.name, 5000, never)
    expect(await far.list(never)).toEqual([])
    const last = rankSpec({ ...base, command: ['sh', '-c', 'sleep 0.6; exit 9'] })
    await far.start(last, never)
    expect((await ended(far, last.name)).exitCode).toBe(9)
    await far.stop(last.name, 0, never)
  })

  test('many calls at once, and beside many that stay open', async () => {
    const far = driver('good')
    const command = ['sh', '-c', FOREVER]
    const spec = rankSpec({ node: 'far', image: TEST_IMAGE, name: 'penstock-far-0-0', command })
    await far.start(spec, never)
    const controller = new AbortController()
    const open = Array.from({ length: 12 }, () =>
      collect(far.follow(spec.name, 1, controller.signal)),
    )
    const lists = await Promise.all(Array.from({ length: 20 }, () => far.list(never)))
    expect(lists.map((list) => list.length)).toEqual(lists.map(() => 1))
    controller.abort()
    expect(await Promise.all(open)).toEqual(open.map(() => []))
    await far.stop(spec.name, 5000, never)
  })

  test('a key that the host does not know', async () => {
    expect(await said(driver('stranger'))).toContain(
      `node far: Docker at ssh://${user}@${ADDRESS}:${port}: the host refused our keys`,
    )
  })

  test('a host that we do not know', async () => {
    const known = join(directory, 'empty')
    writeFileSync(known, '')
    expect(await said(driver('good', { known }))).toContain(
      'its host key is unknown or has changed',
    )
  })

  test('a host without docker, without sshd, without a name', async () => {
    expect(await said(driver('limited'))).toContain('no `docker` command there')
    const nobody = await freePort(ADDRESS)
    expect(await said(driver('good', { port: nobody }))).toContain(
      'nothing listens on the SSH port',
    )
    expect(await said(driver('good', { host: 'no-such-host.invalid' }))).toMatch(
      /the host name is unknown|does not answer/,
    )
  })

  test('no ssh on this machine', async () => {
    const node = nodeSpec('far', { address: ADDRESS, docker: `ssh://${user}@${ADDRESS}` })
    const far = dockerDriver({ node, simulatorImage: 'x', sshCommand: ['no-such-ssh'] })
    expect(await said(far)).toContain('there is no such socket or program')
  })
})

test('a host name never becomes an option of ssh', () => {
  const target = { user: null, host: '-oProxyCommand=evil', port: null, command: ['ssh'] }
  const args = sshArguments(target)
  expect(args.indexOf('--')).toBeLessThan(args.indexOf(target.host))
})
