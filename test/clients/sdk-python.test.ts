import { describe } from 'vitest'
import { requirePart } from '../support/parts.ts'
import { pythonWithOpenai } from '../support/python.ts'
import { suite } from './play.ts'
import { startPython } from './sdk-python.ts'

const python = pythonWithOpenai()

describe.skipIf(!requirePart('the Python openai client', python !== null))(
  'openai for Python',
  () => suite('python', () => startPython(python ?? '')),
)
