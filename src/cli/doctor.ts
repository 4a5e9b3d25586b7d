/**
 * `penstock doctor`: is every node as the inventory declares it? Reads only. One line per check:
 * ok, or what is wrong and what to do; `unknown` where nobody could look, which is not ok.
 */
import { connect } from 'node:net'
import { runtimes } from '../../runtimes/index.ts'
import type { Settings } from '../config.ts'
import { emptyNodes } from '../control/wanted.ts'
import type { Desired } from '../core/desired.ts'
import { GPU_QUERY, parseGpuLine } from '../core/gpu.ts'
import type { NodeSpec } from '../core/inventory.ts'
import type { Container } from '../core/observed.ts'
import { plan } from '../core/planner.ts'
import type { GpuProfiles } from '../core/profile.ts'
import type { RankSpec } from '../core/runtime.ts'
import type { Driver } from '../drivers/driver.ts'
import { errorLine } from '../errors.ts'
import { driverFactory } from './drivers.ts'
import { inputsOf, refuse } from './inputs.ts'
import { EXIT, type ExitCode, green, print, printJson, red, table, yellow } from './output.ts'
import type { Flags } from './program.ts'

type Verdict = 'ok' | 'wrong' | 'unknown'
type Finding = {
  readonly node: string
  readonly check: string
  readonly verdict: Verdict
  readonly detail: string
}

const TIMEOUT_MS = 15_000

export const doctor = async (settings: Settings, { json }: Flags): Promise<ExitCode> => {
  const inputs = await inputsOf(settings)
  if (!inputs.ok) return refuse(inputs.issues)
  const { desired } = inputs
  const planned = plan({
    desired,
    observed: emptyNodes(desired),
    runtimes,
    options: { rehearsalSpeed: settings.rehearsalSpeed },
  })
  const ranks = planned.deployments.flatMap(({ replicas }) => replicas.flatMap((r) => r.ranks))
  const driverFor = driverFactory(settings)
  const findings = await Promise.all(
    desired.inventory.nodes.map((node) =>
      examine(node, driverFor(node), { desired, ranks: ranks.filter((r) => r.node === node.name) }),
    ),
  )
  return report(findings.flat(), json)
}

const report = (findings: readonly Finding[], json: boolean): ExitCode => {
  if (json) printJson(findings)
  else {
    const colour = { ok: green, wrong: red, unknown: yellow }
    const rows = findings.map(({ node, check, verdict, detail }) => [
      colour[verdict](verdict.padEnd(7)),
      node,
      check,
      detail,
    ])
    print(table(rows))
  }
  return findings.some(({ verdict }) => verdict === 'wrong') ? EXIT.failed : EXIT.done
}

type Given = { readonly desired: Desired; readonly ranks: readonly RankSpec[] }

const examine = async (
  node: NodeSpec,
  driver: Driver,
  given: Given,
): Promise<readonly Finding[]> => {
  const finding = (check: string, verdict: Verdict, detail: string): Finding => ({
    node: node.name,
    check,
    verdict,
    detail,
  })
  try {
    const facts = await driver.facts(AbortSignal.timeout(TIMEOUT_MS))
    const running = await driver.list(AbortSignal.timeout(TIMEOUT_MS))
    const reachable = finding('reachable', 'ok', `${facts.engine} on ${facts.hostname}`)
    const images = await Promise.all(given.ranks.map((rank) => image(driver, rank)))
    const gpus = await gpuCheck(node, driver, { ...given, running })
    const ports = await Promise.all(
      portsOf(given.ranks).map((port) => portCheck(node, port, running)),
    )
    const rest = [...images, gpus, ...ports]
    return [reachable, ...rest.map(({ check, verdict, detail }) => finding(check, verdict, detail))]
  } catch (error) {
    return [finding('reachable', 'wrong', errorLine(error))]
  } finally {
    await driver.close()
  }
}

type Part = Omit<Finding, 'node'>

const image = async (driver: Driver, rank: RankSpec): Promise<Part> => {
  const there = await driver.hasImage(rank, AbortSignal.timeout(TIMEOUT_MS))
  const what = rank.rehearsal === null ? rank.image : 'the flight simulator'
  const todo = 'is not there yet: it will be pulled at the first start, or load it beforehand'
  return {
    check: 'image',
    verdict: there ? 'ok' : 'unknown',
    detail: there ? what : `${what} ${todo}`,
  }
}

const gpuCheck = async (
  node: NodeSpec,
  driver: Driver,
  { desired, running }: Given & { readonly running: readonly Container[] },
): Promise<Part> => {
  const check = 'gpus'
  if (node.gpus === undefined) return { check, verdict: 'ok', detail: 'none declared' }
  const declared = `${node.gpus.count} x ${node.gpus.profile}`
  const rank = running.find(({ state }) => state === 'running')
  if (rank === undefined && driver.visibleGpus === 'rank') {
    const detail = `${declared} declared; seen from inside a rank, and none runs here yet`
    return { check, verdict: 'unknown', detail }
  }
  const expected = driver.visibleGpus === 'host' ? node.gpus.count : (rank?.labels.gpus.length ?? 0)
  const found = await gpuNames(driver, rank?.name ?? '')
  const strange = found.find((name) => profileOf(name, desired.profiles) !== node.gpus?.profile)
  if (strange !== undefined) {
    return { check, verdict: 'wrong', detail: `${declared} declared, but there is a ${strange}` }
  }
  const verdict = found.length === expected ? 'ok' : 'wrong'
  return { check, verdict, detail: `${declared} declared, ${found.length} of ${expected} seen` }
}

/** The profile with the longest name that the GPU's begins with: H20 is also a prefix of H20-3e. */
const profileOf = (gpu: string, profiles: GpuProfiles): string | null => {
  const known = [...profiles.values()].flatMap(({ name, names }) =>
    names.map((prefix) => ({ name, prefix })),
  )
  const matching = known.filter(({ prefix }) => gpu.startsWith(prefix))
  const [best] = matching.sort((a, b) => b.prefix.length - a.prefix.length)
  return best?.name ?? null
}

const gpuNames = async (driver: Driver, rank: string): Promise<readonly string[]> => {
  const names: string[] = []
  const command = ['nvidia-smi', `--query-gpu=${GPU_QUERY}`, '--format=csv,noheader,nounits']
  for await (const line of driver.exec(rank, command, AbortSignal.timeout(TIMEOUT_MS))) {
    const parsed = parseGpuLine(line)
    if (parsed?.kind === 'reading') names.push(parsed.reading.name ?? 'GPU without a name')
  }
  return names
}

const portsOf = (ranks: readonly RankSpec[]): readonly number[] => [
  ...new Set(ranks.filter(({ labels }) => labels.rank === 0).map(({ labels }) => labels.port)),
]

/** A port that answers although none of our ranks has it belongs to somebody else. */
const portCheck = async (
  node: NodeSpec,
  port: number,
  running: readonly Container[],
): Promise<Part> => {
  const check = `port ${port}`
  if (running.some(({ labels, state }) => labels.port === port && state === 'running')) {
    return { check, verdict: 'ok', detail: 'held by our own rank' }
  }
  const taken = await new Promise<boolean>((resolve) => {
    const socket = connect({ host: node.address, port, timeout: 2000 })
    const end = (answer: boolean): void => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', () => end(true))
    socket.once('error', () => end(false))
    socket.once('timeout', () => end(false))
  })
  const detail = taken ? 'something else listens there; change `ports.http` of the node' : 'free'
  return { check, verdict: taken ? 'wrong' : 'ok', detail }
}
