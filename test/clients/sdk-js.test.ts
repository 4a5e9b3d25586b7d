import { describe } from 'vitest'
import { suite } from './play.ts'
import { startJs } from './sdk-js.ts'

describe('openai for JavaScript', () => suite('js', startJs))
