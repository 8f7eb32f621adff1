/* test-contract.c: every backend and stage keeps the contract of stage.h. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "tests/stage/contract.h"

ParameterizedTestParameters(contract, random_operations_equal_a_flat_array)
{
	static unsigned int indices[64];

	for (unsigned int i = 0; i < nr_pipelines; i++)
		indices[i] = i;
	return cr_make_param_array(unsigned int, indices, nr_pipelines);
}

ParameterizedTest(unsigned int *index, contract,
		  random_operations_equal_a_flat_array, .timeout = 300)
{
	cr_assert_eq(contract_run(&pipelines[*index], contract_seed(),
				  contract_operations()), 0);
}
