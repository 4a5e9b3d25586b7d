/** A certificate authority and what it signs, by openssl, for a real dockerd with --tlsverify. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export type Tls = { readonly ca: string; readonly cert: string; readonly key: string }

const openssl = (...args: readonly string[]): void => {
  execFileSync('openssl', args, { stdio: 'ignore' })
}

/** Elliptic keys: made in milliseconds. */
const newKey = (path: string): void =>
  openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', path)

export class Authority {
  readonly #directory: string
  readonly ca: string

  constructor(directory: string) {
    mkdirSync(directory, { recursive: true })
    this.#directory = directory
    this.ca = join(directory, 'ca.pem')
    const key = join(directory, 'ca-key.pem')
    newKey(key)
    const subject = ['-subj', '/CN=penstock test authority']
    openssl('req', '-x509', '-new', '-key', key, '-days', '2', '-out', this.ca, ...subject)
  }

  /** `names`: for instance `IP:127.0.0.5`, as in subjectAltName; none for a client. */
  sign(name: string, names: readonly string[]): Tls {
    const path = (suffix: string): string => join(this.#directory, `${name}${suffix}`)
    const [key, request, cert, extensions] = ['-key.pem', '.csr', '.pem', '.ext'].map(path)
    if (!key || !request || !cert || !extensions) throw new Error('unreachable')
    newKey(key)
    openssl('req', '-new', '-key', key, '-subj', `/CN=${name}`, '-out', request)
    const usage = names.length === 0 ? 'clientAuth' : 'serverAuth'
    const lines = [`extendedKeyUsage=${usage}`]
    if (names.length > 0) lines.push(`subjectAltName=${names.join(',')}`)
    writeFileSync(extensions, `${lines.join('\n')}\n`)
    const authority = ['-CA', this.ca, '-CAkey', join(this.#directory, 'ca-key.pem')]
    const signed = ['-CAcreateserial', '-days', '2', '-extfile', extensions]
    openssl('x509', '-req', '-in', request, ...authority, ...signed, '-out', cert)
    return { ca: this.ca, cert, key }
  }
}
