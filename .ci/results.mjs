// Reads the JSON reports of runs that followed each other; of a file's two ends the last counts.
//   node results.mjs died REPORT            files whose process died before they had an end
//   node results.mjs sum STATUS REPORT...   failed tests by name, then `N passed, N failed`
// STATUS: with which the last run ended. Exits with 2 where something failed, 1 where nobody knows.
import { readFileSync } from 'node:fs'

const filesOf = (report) => JSON.parse(readFileSync(report, 'utf8')).testResults

const failuresOf = ({ assertionResults }) =>
  assertionResults.filter(({ status }) => status === 'failed')

/** A file that cannot be loaded has a message; this one has neither that nor a failed test. */
const hasDied = (file) => file.status !== 'passed' && !file.message && failuresOf(file).length === 0

const sum = (status, reports) => {
  const files = new Map(reports.flatMap(filesOf).map((file) => [file.name, file]))
  let [passed, failed] = [0, 0]
  const fail = (name, why) => {
    failed += 1
    console.log(`FAILED ${name}: ${why}`)
  }
  for (const file of files.values()) {
    const shown = file.name.split('/').slice(-3).join('/')
    const failures = failuresOf(file)
    passed += file.assertionResults.filter((one) => one.status === 'passed').length
    for (const { fullName } of failures) fail(shown, fullName)
    if (file.status === 'passed' || failures.length > 0) continue
    fail(shown, file.message || 'its process died')
  }
  if (status !== 0 && failed === 0) fail('the run', `ended with status ${status} (see above)`)
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = failed === 0 && passed > 0 ? 0 : 2
}

const [, , what, ...words] = process.argv
const diedIn = (report) => filesOf(report).filter(hasDied).map(({ name }) => name)

if (what === 'died') console.log(diedIn(words[0]).join(' '))
else sum(Number(words[0]), words.slice(1))
