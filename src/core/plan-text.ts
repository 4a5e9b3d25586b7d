/**
 * A plan as a page for the terminal: for each deployment the fit as a sum, the places with their
 * reasons and the command of every rank, then what changes. The text says everything that the JSON
 * says and adds nothing; secrets are left out.
 */
import { dockerCommand, processCommand } from './command-line.ts'
import type { Fit } from './fit.ts'
import { WOULD_FIT } from './judge.ts'
import type { Action, Plan, PlannedDeployment, PlannedReplica } from './plan.ts'
import { GIB, kib, plural, thousands } from './units.ts'

export type PlanTextOptions = {
  /** The flight simulator stands in for the engines. */
  readonly rehearsal: boolean
  readonly color: boolean
  /** Nodes that run ranks as processes; all others run containers. */
  readonly processNodes?: ReadonlySet<string>
}

type Paint = Readonly<Record<'bold' | 'dim' | 'red' | 'green' | 'yellow', (text: string) => string>>

export const planText = (plan: Plan, options: PlanTextOptions): string => {
  const paint = palette(options.color)
  const title = options.rehearsal
    ? 'Plan (rehearsal: the flight simulator stands in for the engines, no GPU is used)'
    : 'Plan'
  const page = { plan, paint, processNodes: options.processNodes ?? new Set<string>() }
  return [
    [paint.bold(title)],
    ...plan.deployments.map((deployment) => deploymentLines(deployment, page)),
    changeLines(plan, paint),
  ]
    .map((lines) => `${lines.join('\n')}\n`)
    .join('\n')
}

type Page = {
  readonly plan: Plan
  readonly paint: Paint
  readonly processNodes: ReadonlySet<string>
}

const palette = (color: boolean): Paint => {
  const code = (number: number) => (text: string) =>
    color ? `\u001b[${number}m${text}\u001b[0m` : text
  return { bold: code(1), dim: code(2), red: code(31), green: code(32), yellow: code(33) }
}

const indent = (lines: readonly string[], by: number): readonly string[] =>
  lines.flatMap((line) => line.split('\n')).map((line) => `${' '.repeat(by)}${line}`)

const deploymentLines = (deployment: PlannedDeployment, page: Page): readonly string[] => {
  const { paint } = page
  const { name, engine, fit, replicas, unplaced, refusals } = deployment
  const { nodes, tensor, pipeline } = fit.parallel
  const shape = `tensor ${tensor}, pipeline ${pipeline}, ${plural(nodes, 'node')}`
  return [
    `${paint.bold(name)}: ${engine}, ${shape}, context ${thousands(fit.context)}`,
    ...indent(fitLines(fit), 2),
    ...indent(
      refusals.map((line) =>
        line.startsWith(WOULD_FIT) ? `  ${line}` : paint.red(`refused: ${line}`),
      ),
      2,
    ),
    ...replicas.flatMap((replica) => indent(replicaLines(replica, page), 2)),
    ...unplaced.flatMap(({ replica, reasons }) => [
      `  ${paint.red(`${name}/${replica}: no place`)}`,
      ...indent(reasons, 6),
    ]),
  ]
}

/** The sum, right-aligned: GiB to read, bytes to check. */
const fitLines = (fit: Fit): readonly string[] => {
  if (fit.profile === null) return fit.reasons.map((reason) => `fit: ${reason}`)
  const share = `share that the engine may use, ${fit.memoryFraction}`
  const rows: readonly (readonly [string, number])[] = [
    ['  VRAM', fit.memoryBytes],
    [`  ${share}`, fit.budgetBytes],
    ['- weights', fit.weightsBytesPerGpu],
    ...fit.overhead.map(({ what, bytes }) => [`- ${what}`, bytes] as const),
    ['= KV cache', fit.kvBytesPerGpu],
  ]
  const wide = Math.max(...rows.map(([what]) => what.length))
  const sum = rows.map(([what, bytes]) => {
    const gibibytes = `${(bytes / GIB).toFixed(2)} GiB`.padStart(12)
    return `  ${what.padEnd(wide)}${gibibytes}${thousands(bytes).padStart(18)} B`
  })
  const token = `${thousands(fit.kvBytesPerTokenPerGpu)} B (${kib(fit.kvBytesPerTokenPerGpu)})`
  return [
    `fit: ${fit.ok ? 'yes' : 'no'}, per GPU of profile ${fit.profile}`,
    ...sum,
    `  at ${token} a token: KV pool of ${thousands(fit.kvPoolTokens)} tokens`,
    `  = ${fit.fullContextRequests} requests of full context (${thousands(fit.context)} tokens)`,
  ]
}

const SIGNS = { start: '+', replace: '~', stop: '-' } as const

const signed = ({ kind }: Action, paint: Paint): ((text: string) => string) =>
  kind === 'start' ? paint.green : kind === 'replace' ? paint.yellow : paint.red

const replicaLines = (replica: PlannedReplica, { plan, paint, processNodes }: Page) => {
  const action = plan.actions.find(({ id }) => id === replica.id)
  const head =
    action === undefined
      ? `= ${replica.id}: unchanged`
      : signed(
          action,
          paint,
        )(`${SIGNS[action.kind]} ${replica.id}: ${action.kind}, ${action.reason}`)
  const ranks = replica.ranks.flatMap((spec) => {
    const isProcess = processNodes.has(spec.node)
    const line = isProcess ? processCommand(spec) : dockerCommand(spec)
    return [paint.dim(`# rank ${spec.labels.rank}, on ${spec.node}`), line]
  })
  return [
    head,
    ...indent(
      [
        `place: ${replica.reason}`,
        ...replica.rejected.map(({ node, reason }) => paint.dim(`not ${node}: ${reason}`)),
        `endpoint: ${replica.endpoint}`,
        `spec hash: ${replica.specHash}`,
        ...ranks,
      ],
      4,
    ),
  ]
}

const changeLines = ({ actions, unchanged, deployments }: Plan, paint: Paint) => {
  const lines = actions.map((action) =>
    signed(action, paint)(`  ${SIGNS[action.kind]} ${action.kind} ${action.id}: ${action.reason}`),
  )
  const count = (kind: Action['kind']) => actions.filter((one) => one.kind === kind).length
  const refused = deployments.filter(({ refusals }) => refusals.length > 0).length
  const homeless = deployments.reduce((sum, { unplaced }) => sum + unplaced.length, 0)
  const total = [
    `${count('start')} to start`,
    `${count('replace')} to replace`,
    `${count('stop')} to stop`,
    `${unchanged.length} unchanged`,
    ...(refused === 0 ? [] : [paint.red(`${plural(refused, 'deployment')} refused`)]),
    ...(homeless === 0 ? [] : [paint.red(`${plural(homeless, 'replica')} without a place`)]),
  ].join(', ')
  const idle = refused + homeless === 0 ? 'Nothing to do' : 'Nothing can be done'
  return [
    paint.bold(actions.length === 0 ? idle : 'Changes'),
    ...lines,
    ...unchanged.map((id) => `  = ${id}`),
    total,
  ]
}
