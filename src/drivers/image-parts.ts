/** What this machine can give to an image without any registry: Node, a shell, our own sources. */
import { execFile } from 'node:child_process'
import { readdir, readFile, realpath, stat } from 'node:fs/promises'
import { dirname, join, relative, resolve } from 'node:path'
import { promisify } from 'node:util'
import { PenstockError } from '../errors.ts'
import type { ImageFile } from './docker-image.ts'
import { findProgram } from './environment.ts'

const run = promisify(execFile)
const SYSTEM_PATH = `${process.env.PATH ?? ''}:/usr/sbin:/usr/bin:/sbin:/bin`
export const APPLICATION = 'opt/penstock'

/** A program with the shared libraries that ldd(1) names, each at its own path. */
const programParts = async (file: string, at: string): Promise<readonly ImageFile[]> => {
  const libraries = await librariesOf(file)
  return [
    { path: at, mode: 0o755, from: { file: await realpath(file) } },
    ...libraries.map((path) => ({ path: path.slice(1), mode: 0o755, from: { file: path } })),
  ]
}

const librariesOf = async (file: string): Promise<readonly string[]> => {
  const output = await run('ldd', [file]).then(
    ({ stdout }) => stdout,
    (error: unknown) => {
      // A static program is not an error to us, though it is to ldd.
      const said = error instanceof Error ? error.message : String(error)
      if (/not a dynamic executable|statically linked/.test(said)) return ''
      throw new PenstockError('invalid_input', `cannot list the libraries of ${file}: ${said}`)
    },
  )
  return output
    .split('\n')
    .map((line) => /(?:=> )?(\/\S+) \(0x/.exec(line)?.[1])
    .filter((path) => path !== undefined)
}

export const nodeParts = (): Promise<readonly ImageFile[]> =>
  programParts(process.execPath, 'usr/local/bin/node')

const PLAIN_TOOLS = ['sh', 'env', 'cat', 'sleep', 'ls'] as const

/** busybox with a link per applet; on a machine without it, its own shell and a few tools. */
export const shellParts = async (): Promise<readonly ImageFile[]> => {
  const base = ['tmp', 'proc', 'dev', 'sys', 'etc', 'root'].map(directory)
  const busybox = await findProgram('busybox', SYSTEM_PATH)
  if (busybox === null) {
    const tools = await Promise.all(PLAIN_TOOLS.map(plainTool))
    return [...base, ...tools.flat(), link('usr/bin/env', '/bin/env')]
  }
  const { stdout } = await run(busybox, ['--list'])
  const applets = stdout.split('\n').filter((name) => name !== '' && name !== 'busybox')
  return [
    ...base,
    ...(await programParts(busybox, 'bin/busybox')),
    ...applets.map((name) => link(`bin/${name}`, '/bin/busybox')),
    link('usr/bin/env', '/bin/busybox'),
  ]
}

const plainTool = async (name: string): Promise<readonly ImageFile[]> => {
  const file = await findProgram(name, SYSTEM_PATH)
  return file === null ? [] : await programParts(file, `bin/${name}`)
}

const link = (path: string, target: string): ImageFile => ({
  path,
  mode: 0o777,
  from: { link: target },
})

const directory = (path: string): ImageFile => ({
  path,
  mode: path === 'tmp' ? 0o1777 : 0o755,
  from: { directory: true },
})

/**
 * Everything below `runtimes/`, the sources that it imports from elsewhere in the checkout, and
 * the packages that those import, without their types. Below /opt/penstock as in the checkout.
 */
export const sourceParts = async (root: string): Promise<readonly ImageFile[]> => {
  const files = new Set(await filesBelow(join(root, 'runtimes')))
  const packages = new Set<string>()
  for (const file of files) {
    if (!file.endsWith('.ts')) continue
    for (const specifier of await importsOf(file)) {
      if (specifier.startsWith('.')) files.add(resolve(file, '..', specifier))
      else if (!specifier.startsWith('node:')) packages.add(packageOf(specifier))
    }
  }
  const parts = [...files, join(root, 'package.json')].map((file) => asImageFile(root, file))
  for (const name of packages) {
    const directory = await packageDirectory(root, name)
    for (const dependency of await dependenciesOf(directory)) packages.add(dependency)
    const own = (await filesBelow(directory)).filter((it) => isRuntimeFile(relative(directory, it)))
    const at = join('node_modules', name)
    parts.push(...own.map((file) => asImageFile(directory, file, at)))
  }
  return await Promise.all(parts)
}

/** In the checkout's node_modules, or above where the package manager lifted it. */
const packageDirectory = async (root: string, name: string): Promise<string> => {
  for (let above = root; ; above = dirname(above)) {
    const directory = join(above, 'node_modules', name)
    if ((await stat(directory).catch(() => null)) !== null) return directory
    if (above === dirname(above)) break
  }
  throw new PenstockError('invalid_input', `package ${name} is not installed below ${root}`)
}

const asImageFile = async (root: string, file: string, at = ''): Promise<ImageFile> => {
  const executable = ((await stat(file)).mode & 0o111) !== 0
  const path = join(APPLICATION, at, relative(root, file))
  return { path, mode: executable ? 0o755 : 0o644, from: { file } }
}

/** `import … from 'x'`, `export … from 'x'`, `import 'x'`, `import('x')`; types go with them. */
const IMPORT = /(?:\bfrom\s+|\bimport\s+|\bimport\(\s*)'([^'\n]+)'/g

const importsOf = async (file: string): Promise<readonly string[]> => {
  const text = await readFile(file, 'utf8')
  return [...text.matchAll(IMPORT)].map((match) => match[1]).filter((it) => it !== undefined)
}

const packageOf = (specifier: string): string =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')

const dependenciesOf = async (directory: string): Promise<readonly string[]> => {
  const manifest: unknown = JSON.parse(await readFile(join(directory, 'package.json'), 'utf8'))
  const hasSome = typeof manifest === 'object' && manifest !== null && 'dependencies' in manifest
  const { dependencies } = hasSome ? manifest : { dependencies: null }
  return typeof dependencies === 'object' && dependencies !== null ? Object.keys(dependencies) : []
}

const isRuntimeFile = (path: string): boolean =>
  !path.startsWith('src/') && !/\.(ts|cts|mts|map|md)$/.test(path)

const filesBelow = async (path: string): Promise<readonly string[]> => {
  const entries = await readdir(path, { withFileTypes: true, recursive: true })
  return entries.filter((entry) => entry.isFile()).map((it) => join(it.parentPath, it.name))
}
