/**
 * What /proc says (proc(5)): who a process id is, who belongs to a run, who listens on a port.
 * A process id alone proves nothing, it is reused: with its start time and the boot id it is one.
 */
import { readdir, readFile, readlink } from 'node:fs/promises'
import { isIPv6 } from 'node:net'

export type Process = {
  readonly pid: number
  /** Z and X are dead: they hold no memory and only wait for their parent. */
  readonly state: string
  readonly group: number
  readonly session: number
  /** Clock ticks since boot, field 22 of /proc/<pid>/stat. */
  readonly startTicks: number
}

/** Empty when the file or the process is gone, or belongs to somebody else. */
const readOrEmpty = async (path: string): Promise<string> => {
  try {
    return await readFile(path, 'utf8')
  } catch {
    return ''
  }
}

/** The command name may hold spaces and parentheses, so fields are counted from the last `)`. */
export const parseStat = (pid: number, text: string): Process | null => {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const [state, group, session] = [fields[0], Number(fields[2]), Number(fields[3])]
  const startTicks = Number(fields[19])
  if (!state || !Number.isInteger(group) || !Number.isInteger(startTicks)) return null
  return { pid, state, group, session, startTicks }
}

export const readProcess = async (pid: number): Promise<Process | null> =>
  parseStat(pid, await readOrEmpty(`/proc/${pid}/stat`))

export const isAlive = (process: Process | null): process is Process =>
  process !== null && process.state !== 'Z' && process.state !== 'X'

export const bootId = async (): Promise<string> =>
  (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()

const processIds = async (): Promise<readonly number[]> =>
  (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)

/** The environment that the process was started with. */
export const readEnvironment = async (pid: number): Promise<Record<string, string>> => {
  const entries = (await readOrEmpty(`/proc/${pid}/environ`)).split('\0')
  return Object.fromEntries(
    entries
      .filter((entry) => entry.includes('='))
      .map((entry) => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)]),
  )
}

export type RunMark = {
  /** `NAME=value` that every process of the run inherits, also one that left the group. */
  readonly mark: string
  /** The run's process group, which is its session too, and when its leader started. */
  readonly leader: { readonly pid: number; readonly startTicks: number } | null
}

/**
 * Every live process of a run: those of its group and those that left it but carry its mark.
 * (Engines that set their process title overwrite the mark; those stay in the group.)
 */
export const processesOf = async (run: RunMark): Promise<readonly Process[]> => {
  const found: Process[] = []
  const { leader } = run
  const head = leader === null ? null : await readProcess(leader.pid)
  // Another leader with this number means that ours and all its group were gone before.
  const ours = leader !== null && (head === null || head.startTicks === leader.startTicks)
  for (const pid of await processIds()) {
    const process = await readProcess(pid)
    if (!isAlive(process) || pid === globalThis.process.pid) continue
    const inGroup = ours && leader !== null && process.session === leader.pid
    if (inGroup || (await readOrEmpty(`/proc/${pid}/environ`)).split('\0').includes(run.mark)) {
      found.push(process)
    }
  }
  return found
}

export type Listener = { readonly pid: number | null; readonly program: string | null }

/** Who listens on this TCP port at this address (or at all addresses); null: nobody. */
export const listenerOn = async (address: string, port: number): Promise<Listener | null> => {
  const [four, six] = await Promise.all([
    readOrEmpty('/proc/net/tcp'),
    readOrEmpty('/proc/net/tcp6'),
  ])
  const rows = [...four.split('\n').slice(1), ...six.split('\n').slice(1)]
  const inode = rows.map((row) => listeningInode(row, address, port)).find((it) => it !== null)
  if (inode === undefined || inode === null) return null
  const pid = await ownerOf(`socket:[${inode}]`)
  if (pid === null) return { pid, program: null }
  const command = (await readOrEmpty(`/proc/${pid}/cmdline`)).split('\0').filter((it) => it !== '')
  return { pid, program: command.length === 0 ? null : command.slice(0, 3).join(' ').slice(0, 80) }
}

const LISTEN = '0A'

/** One row of /proc/net/tcp: `sl local:port remote:port state … inode`, addresses in hex. */
const listeningInode = (row: string, address: string, port: number): string | null => {
  const fields = row.trim().split(/\s+/)
  const [local, state, inode] = [fields[1] ?? '', fields[3], fields[9]]
  const [bound = '', boundPort = ''] = local.split(':')
  if (state !== LISTEN || Number.parseInt(boundPort, 16) !== port || inode === undefined)
    return null
  const any = /^0+$/.test(bound) || /^0{16}FFFF0{4}0{8}$/.test(bound)
  const wanted = hexAddress(address)
  return any || wanted === null || bound.endsWith(wanted) ? inode : null
}

/** IPv4 as the kernel prints it (little endian); null when only a name or IPv6 is known. */
const hexAddress = (address: string): string | null => {
  if (isIPv6(address) || !/^\d+(\.\d+){3}$/.test(address) || address === '0.0.0.0') return null
  return address
    .split('.')
    .reverse()
    .map((part) => Number(part).toString(16).padStart(2, '0').toUpperCase())
    .join('')
}

const ownerOf = async (link: string): Promise<number | null> => {
  for (const pid of await processIds()) {
    let handles: readonly string[] = []
    try {
      handles = await readdir(`/proc/${pid}/fd`)
    } catch {
      continue // gone, or another user's
    }
    for (const handle of handles) {
      if ((await readlink(`/proc/${pid}/fd/${handle}`).catch(() => '')) === link) return pid
    }
  }
  return null
}
