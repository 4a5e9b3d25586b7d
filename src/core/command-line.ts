/**
 * A rank as a line that an operator can paste into a shell: `docker run …`, or for the process
 * driver the program with its variables. Values of secret variables stay out of it: the line takes
 * them from the shell that it is pasted into.
 */
import { labelsToRecord, type RankSpec } from './runtime.ts'
import { GIB, MIB } from './units.ts'

/** Whole words of a variable's name: `HF_TOKEN` is one, `TOKENIZERS_PARALLELISM` is not. */
const SECRET = /(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|KEY)(_|$)/

export const isSecret = (variable: string): boolean => SECRET.test(variable)

/** One word for a POSIX shell: bare when it needs no quotes. */
export const quoted = (word: string): string =>
  /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`

/** As drivers/docker-container.ts sets them. */
const ULIMITS = ['memlock=-1', 'stack=67108864', 'nofile=65536']

/** `docker run` with everything that the docker driver sets; one option a line. */
export const dockerCommand = (spec: RankSpec): string => {
  const [program = '', ...rest] = spec.command
  const options = [
    ['--name', spec.name],
    ['--network', 'host'],
    ['--init'],
    ['--restart', 'no'],
    ['--no-healthcheck'],
    ...(spec.gpus.length === 0 ? [] : [['--gpus', `"device=${spec.gpus.join(',')}"`]]),
    ['--ipc', spec.ipc],
    // With the host's IPC its /dev/shm is used, whatever the size here.
    ...(spec.ipc === 'host' ? [] : [['--shm-size', size(spec.shmBytes)]]),
    ...(spec.memlock === 'unlimited' ? ULIMITS.map((limit) => ['--ulimit', limit]) : []),
    ...(spec.privileged ? [['--privileged']] : []),
    ...spec.capabilities.map((name) => ['--cap-add', name]),
    ...spec.devices.map((path) => ['--device', path]),
    ...spec.mounts.map(({ host, inside, readOnly }) => [
      '--volume',
      `${host}:${inside}${readOnly ? ':ro' : ''}`,
    ]),
    ...variables(spec).map((one) => ['--env', one]),
    ...Object.entries(labelsToRecord(spec.labels)).map(([key, value]) => [
      '--label',
      `${key}=${value}`,
    ]),
    ['--stop-timeout', String(Math.ceil(spec.stopGraceMs / 1000))],
    ['--entrypoint', program],
  ]
  const lines = options.map((words) => words.map(quoted).join(' '))
  return ['docker run --detach', ...lines, spec.image, ...commandLines(rest)].join(' \\\n  ')
}

/** What the process driver runs: no container, so no mounts and no limits. */
export const processCommand = (spec: RankSpec): string => {
  const [program = '', ...rest] = spec.command
  const gpus = spec.gpus.length === 0 ? [] : [`CUDA_VISIBLE_DEVICES=${spec.gpus.join(',')}`]
  const set = [...gpus, ...variables(spec).filter((one) => one.includes('='))].map(quoted)
  return ['env', ...set, quoted(program), ...commandLines(rest)].join(' \\\n  ')
}

const size = (bytes: number): string =>
  bytes % GIB === 0 ? `${bytes / GIB}g` : `${Math.ceil(bytes / MIB)}m`

const variables = ({ environment }: RankSpec): readonly string[] =>
  Object.entries(environment).map(([name, value]) => (isSecret(name) ? name : `${name}=${value}`))

/** A flag and its value on one line, as a person would write it. */
const commandLines = (words: readonly string[]): readonly string[] => {
  const lines: string[] = []
  let flag: string | null = null
  for (const word of words) {
    if (word.startsWith('-')) {
      if (flag !== null) lines.push(flag)
      flag = quoted(word)
    } else {
      lines.push(flag === null ? quoted(word) : `${flag} ${quoted(word)}`)
      flag = null
    }
  }
  return flag === null ? lines : [...lines, flag]
}
