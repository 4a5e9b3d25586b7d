/**
 * Files to what is wanted, or every issue of every file at once with file, line and column. Works
 * on text, because the CLI sends its files to the running Penstock; control/read.ts reads them from
 * disk. Nothing here throws on what a file says.
 */
import path from 'node:path'
import type { InputFile, InputFiles, Issue } from '../core/admin.ts'
import {
  type Desired,
  type DocumentId,
  type Finding,
  findings,
  gatewayOf,
  type Parts,
  type Sourced,
} from '../core/desired.ts'
import type { Gateway } from '../core/gateway-manifest.ts'
import { type Inventory, InventorySchema, type NodeSettings } from '../core/inventory.ts'
import { type Deployment, DocumentSchema } from '../core/manifest.ts'
import { nearest } from '../core/nearest.ts'
import type { GpuProfiles } from '../core/profile.ts'
import { check, placeOf } from './explain.ts'
import { withLocalShape } from './local.ts'
import type { Located, Path, Problem } from './located.ts'
import { readYaml, type YamlText } from './yaml.ts'

export type LoadAnswer =
  | { readonly ok: true; readonly desired: Desired }
  | { readonly ok: false; readonly issues: readonly Issue[] }

/** Enough to see what is wrong; the rest is counted. */
const ISSUES_MAX = 200
export const MANIFESTS_MAX = 1000
const DOCUMENTS_MAX = 10_000
/** All files together, characters: reading them takes a few seconds at worst. */
export const TOTAL_MAX = 8 * 1024 * 1024

/**
 * Check inventory and manifests together. `earlier` are issues of files that could not be read:
 * they are reported too, and then nothing is called unknown that might stand in one of them.
 */
export const parseFiles = (
  files: InputFiles,
  profiles: GpuProfiles,
  earlier: readonly Issue[] = [],
): LoadAnswer => {
  const loader = new Loader(earlier)
  const inventory = loader.inventory(files.inventory)
  for (const file of loader.within(files.manifests)) loader.manifest(file)
  const parts = loader.parts(inventory, profiles)
  for (const finding of findings(parts)) loader.find(finding)
  const issues = loader.issues
  if (issues.length > 0 || inventory === null) return { ok: false, issues }
  const deployments = parts.deployments.map(({ value }) => value)
  const gateway = gatewayOf(parts.gateways[0]?.value ?? null, deployments)
  return { ok: true, desired: { inventory: inventory.value, deployments, gateway, profiles } }
}

/** `file:line:column: path: what is wrong (did you mean …?)`, one line whatever a file holds. */
export const issueLine = ({ file, line, column, path: at, message }: Issue): string =>
  [`${file}:${line}:${column}`, ...(at === '' ? [] : [at]), message]
    .join(': ')
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these would break the line
    .replaceAll(/[\u0000-\u001F\u007F-\u009F\u2028\u2029]/g, (character) => {
      return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
    })

const PATH_MAX = 200
const STEP_MAX = 60

/** `nodes.h20-1.gpus.profile`, `routes[0].to`. */
const pathText = (steps: Path): string =>
  steps
    .map((step) => (typeof step === 'number' ? `[${step}]` : `.${step.slice(0, STEP_MAX)}`))
    .join('')
    .slice(0, PATH_MAX)
    .replace(/^\./, '')

/** By file, line and column; the same thing is said once; at most 200, the rest counted. */
export const sortedIssues = (given: readonly Issue[]): readonly Issue[] => {
  const sorted = [...new Map(given.map((issue) => [issueLine(issue), issue])).values()].sort(
    (a, b) => compare(a.file, b.file) || a.line - b.line || a.column - b.column,
  )
  const last = sorted[ISSUES_MAX - 1]
  if (sorted.length <= ISSUES_MAX || last === undefined) return sorted
  const message = `and ${sorted.length - ISSUES_MAX + 1} more issues`
  return [...sorted.slice(0, ISSUES_MAX - 1), { ...last, path: '', message }]
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

export const issueAt = (file: string, yaml: YamlText, problem: Problem): Issue => ({
  file,
  ...yaml.place(problem.at),
  path: pathText(problem.path),
  message: problem.message,
})

/** A document of a file, for the rules between documents to point into. */
type Document = { readonly file: string; readonly yaml: YamlText; readonly root: Located }

const KINDS = DocumentSchema.options.map((schema) => ({
  schema,
  kind: [...schema.shape.kind.values].join(),
}))

class Loader {
  readonly #issues: Issue[]
  readonly #documents: Document[] = []
  readonly #deployments: Sourced<Deployment>[] = []
  readonly #gateways: Sourced<Gateway>[] = []
  readonly #deploymentNames: Sourced<string>[] = []
  readonly #nodeNames = new Set<string>()
  /** False once something could not be read, so that names may be declared where nobody looked. */
  #nodesKnown = true
  #deploymentsKnown: boolean

  constructor(earlier: readonly Issue[]) {
    this.#issues = [...earlier]
    this.#deploymentsKnown = earlier.length === 0
  }

  get issues(): readonly Issue[] {
    return sortedIssues(this.#issues)
  }

  /** The manifests that are read: as many and as large as the bounds allow. */
  within(manifests: readonly InputFile[]): readonly InputFile[] {
    let total = 0
    const fitting = manifests.slice(0, MANIFESTS_MAX).filter(({ text }) => {
      total += text.length
      return total <= TOTAL_MAX
    })
    if (fitting.length === manifests.length) return fitting
    const message = `more than ${MANIFESTS_MAX} manifests, or more than 8 MiB of them`
    this.say(manifests[fitting.length]?.path ?? '', message)
    this.#deploymentsKnown = false
    return fitting
  }

  /** An issue of a whole file. */
  say(file: string, message: string): void {
    this.#issues.push({ file, line: 1, column: 1, path: '', message })
  }

  find({ document, path: at, message, other }: Finding): void {
    const place = this.#documents[other?.document ?? -1]
    const there = place === undefined ? '' : ` in ${this.#where(place, other?.path ?? [])}`
    const here = this.#documents[document]
    if (here === undefined) return
    this.#report(here, { at: placeOf(here.root, at).at, path: at, message: message + there })
  }

  inventory(file: InputFile | null): Sourced<Inventory> | null {
    if (file === null) {
      this.#nodesKnown = false
      if (this.#issues.length === 0)
        this.say('inventory', 'no inventory is given, and none is in use')
      return null
    }
    const { documents, complete } = this.#read(file)
    const [document, second] = documents
    const here = this.#documents[document ?? -1]
    if (!complete) this.#nodesKnown = false
    if (document === undefined || here === undefined) {
      this.#nodesKnown = false
      if (complete) this.say(file.path, 'is empty: expected nodes')
      return null
    }
    const extra = this.#documents[second ?? -1]
    const surplus = 'a second document: expected one inventory'
    if (extra !== undefined) this.#report(extra, { at: extra.root.at, path: [], message: surplus })
    for (const name of here.root.entries.get('nodes')?.node.entries.keys() ?? []) {
      this.#nodeNames.add(name)
    }
    const { value, problems } = check(InventorySchema, here.root)
    for (const problem of problems) this.#report(here, problem)
    if (value === null) return null
    const directory = path.dirname(file.path)
    const nodes = Object.entries(value.nodes).map(([name, node]) => ({
      name,
      ...withTls(node, directory),
    }))
    return { document, value: { nodes } }
  }

  manifest(file: InputFile): void {
    const { documents, complete } = this.#read(file)
    if (!complete) this.#deploymentsKnown = false
    else if (documents.length === 0 && file.text.trim() === '') {
      this.say(file.path, `is empty: expected kind: ${kindNames()}`)
    }
    for (const document of documents) this.#manifestDocument(document)
  }

  parts(inventory: Sourced<Inventory> | null, profiles: GpuProfiles): Parts {
    const nodes = inventory?.value.nodes ?? []
    return {
      inventory,
      deployments: this.#deployments.map(({ document, value }) => ({
        document,
        value: withLocalShape(value, nodes, (message) => {
          this.find({ document, path: ['weights', 'path'], message })
        }),
      })),
      gateways: this.#gateways,
      nodeNames: this.#nodesKnown ? this.#nodeNames : null,
      deploymentNames: this.#deploymentsKnown ? this.#deploymentNames : null,
      profiles,
    }
  }

  #read(file: InputFile): { documents: readonly DocumentId[]; complete: boolean } {
    const yaml = readYaml(file.text)
    for (const problem of yaml.problems) this.#issues.push(issueAt(file.path, yaml, problem))
    const room = DOCUMENTS_MAX - this.#documents.length
    if (yaml.documents.length > room) this.say(file.path, `more than ${DOCUMENTS_MAX} documents`)
    const documents = yaml.documents
      .slice(0, room)
      .map((root) => this.#documents.push({ file: file.path, yaml, root }) - 1)
    return { documents, complete: yaml.complete && yaml.documents.length <= room }
  }

  #manifestDocument(document: DocumentId): void {
    const here = this.#documents[document]
    if (here === undefined) return
    const { root } = here
    const name = root.entries.get('name')?.node
    const kind = root.entries.get('kind')?.node
    const known = KINDS.find((one) => one.kind === kind?.value)
    if (kind?.value !== 'Gateway' && name?.kind === 'text') {
      this.#deploymentNames.push({ document, value: String(name.value) })
    } else if (kind?.value === 'Deployment') this.#deploymentsKnown = false
    if (known === undefined) {
      this.#deploymentsKnown = false
      this.#report(here, wrongKind(root, kind))
      return
    }
    const { value, problems } = check(known.schema, root)
    for (const problem of problems) this.#report(here, problem)
    if (value?.kind === 'Deployment') this.#deployments.push({ document, value })
    if (value?.kind === 'Gateway') {
      this.#gateways.push({ document, value: withKeys(value, path.dirname(here.file)) })
    }
  }

  #report({ file, yaml }: Document, problem: Problem): void {
    this.#issues.push(issueAt(file, yaml, problem))
  }

  #where({ file, yaml, root }: Document, at: Path): string {
    return `${file}:${yaml.place(placeOf(root, at).at).line}`
  }
}

const kindNames = (): string => KINDS.map(({ kind }) => kind).join(' or ')

const wrongKind = (root: Located, kind: Located | undefined): Problem => {
  if (root.kind !== 'map') {
    const shape = root.kind === 'list' ? 'a list' : `${root.kind}`
    const message = `expected a map that begins with kind: ${KINDS[0]?.kind}, got ${shape}`
    return { at: root.at, path: [], message }
  }
  if (kind === undefined) {
    return { at: root.at, path: ['kind'], message: `missing: expected ${kindNames()}` }
  }
  const written = kind.kind === 'text' ? String(kind.value) : kind.source
  const near = nearest(
    written,
    KINDS.map((one) => one.kind),
  )
  const hint = near === null ? '' : ` (did you mean ${JSON.stringify(near)}?)`
  const got = JSON.stringify(written.slice(0, STEP_MAX))
  const message = `expected ${kindNames()}, got ${got}${hint}`
  return { at: kind.at, path: ['kind'], message }
}

/** PEM files are named from where the inventory lies. */
const withTls = (node: NodeSettings, directory: string): NodeSettings => {
  if (node.tls === undefined) return node
  const { ca, cert, key } = node.tls
  const from = (file: string) => path.resolve(directory, file)
  return { ...node, tls: { ca: from(ca), cert: from(cert), key: from(key) } }
}

/** A backend's key file is named from where the manifest lies. */
const withKeys = (gateway: Gateway, directory: string): Gateway => ({
  ...gateway,
  backends: Object.fromEntries(
    Object.entries(gateway.backends).map(([name, backend]) => {
      const file = backend.key?.file
      return [
        name,
        file === undefined ? backend : { ...backend, key: { file: path.resolve(directory, file) } },
      ]
    }),
  ),
})
