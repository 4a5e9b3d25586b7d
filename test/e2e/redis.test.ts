/** A Penstock that shares its limits by a Redis, as its operator sees it. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { Authority } from '../support/certificates.ts'
import { freePort, newPlace, penstock, until, verb } from '../support/penstock.ts'
import { PASSWORD, REDIS, startRedis } from '../support/redis.ts'

const ends: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

describe.skipIf(!REDIS)('penstock serve with a Redis', { timeout: 120_000 }, () => {
  test('metrics and log say whether it is there; its password stays in its file', async () => {
    const redis = await startRedis()
    ends.push(() => redis.close())
    const first = await newPlace({ PENSTOCK_REDIS: redis.url, PENSTOCK_THREADS: '2' })
    const file = join(first.home, 'redis-password')
    writeFileSync(file, `${PASSWORD}\n`)
    const environment = { ...first.environment, PENSTOCK_REDIS_PASSWORD_FILE: file }
    const place = { ...first, environment }
    const serve = penstock(place, ['serve', '--rehearse'])
    ends.push(async () => {
      serve.signal('SIGKILL')
      await serve.ended()
      place.remove()
    })
    await serve.says(/endpoint/)
    const metrics = async (): Promise<string> => {
      const bearer = readFileSync(join(place.home, 'admin.key'), 'utf8').trim()
      const response = await fetch(`http://127.0.0.1:${place.consolePort}/metrics`, {
        headers: { authorization: `Bearer ${bearer}` },
      })
      return response.text()
    }
    const shows = (line: string): Promise<true> =>
      until(async () => ((await metrics()).includes(`\n${line}\n`) ? true : null), line)
    await shows('penstock_redis_up 1')
    await shows('penstock_limits_shared{state="redis"} 2')
    await shows('penstock_limits_gateways 1')
    await redis.kill()
    await shows('penstock_redis_up 0')
    await shows('penstock_limits_shared{state="local"} 2')
    await serve.says(/Redis is away .*: this gateway takes 1\/1 of each limit/)
    await redis.start()
    await shows('penstock_redis_up 1')
    expect(serve.output()).not.toContain(PASSWORD)
  })

  test('it may speak TLS and know Penstock by a user of its own', async () => {
    const first = await newPlace({ PENSTOCK_THREADS: '1' })
    const authority = new Authority(join(first.home, 'tls'))
    const { ca, cert, key } = authority.sign('redis', ['IP:127.0.0.1'])
    const tlsPort = await freePort()
    const redis = await startRedis([
      ...['--tls-port', String(tlsPort), '--tls-auth-clients', 'no'],
      ...['--tls-cert-file', cert, '--tls-key-file', key, '--tls-ca-cert-file', ca],
    ])
    ends.push(() => redis.close())
    await redis.say('ACL', 'SETUSER', 'penstock', 'on', '>its own', '~{penstock}*', '+@all')
    const file = join(first.home, 'redis-password')
    writeFileSync(file, 'its own')
    const environment = {
      ...first.environment,
      PENSTOCK_REDIS: `rediss://penstock@127.0.0.1:${tlsPort}/0`,
      PENSTOCK_REDIS_PASSWORD_FILE: file,
      NODE_EXTRA_CA_CERTS: ca,
    }
    const place = { ...first, environment }
    const serve = penstock(place, ['serve', '--rehearse'])
    ends.push(async () => {
      serve.signal('SIGKILL')
      await serve.ended()
      place.remove()
    })
    await serve.says(/limits: shared by Redis/)
  })

  test('what is wrong with the settings is said without the password', async () => {
    const first = await newPlace({ PENSTOCK_REDIS: `http://:${PASSWORD}@127.0.0.1` })
    ends.push(async () => first.remove())
    const wrong = await verb(first, 'serve', '--rehearse')
    expect([wrong.code, wrong.output.includes(PASSWORD)]).toEqual([2, false])
    expect(wrong.output).toContain('PENSTOCK_REDIS: expected a URL such as redis://')
    const environment = {
      ...first.environment,
      PENSTOCK_REDIS: 'redis://127.0.0.1:1',
      PENSTOCK_REDIS_PASSWORD_FILE: join(first.home, 'absent'),
    }
    const missing = await verb({ ...first, environment }, 'serve', '--rehearse')
    expect(missing.code).toBe(2)
    expect(missing.output).toMatch(/PENSTOCK_REDIS_PASSWORD_FILE: .*absent: no such file/)
    const help = await verb(first, 'serve', '--help')
    expect(help.output).not.toMatch(/--redis /)
  })
})
