/* test-contract.c: every backend and stage keeps the contract of stage.h. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "tests/stage/contract.h"

ParameterizedTestParameters(contract, random_operations_equal_a_flat_array)
{
	static unsigned int indices[64];
	unsigned int nr;

	contract_pipelines(&nr);
	for (unsigned int i = 0; i < nr; i++)
		indices[i] = i;
	return cr_make_param_array(unsigned int, indices, nr);
}

ParameterizedTest(unsigned int *index, contract,
		  random_operations_equal_a_flat_array, .timeout = 300)
{
	unsigned int nr;
	const struct pipeline *pipeline = &contract_pipelines(&nr)[*index];
	const char *lacks = contract_lacks(pipeline);

	/* A missing program is a failure: contrib/check.sh installs all that tests need. */
	cr_assert_null(lacks, "contract: %s: %s is not on PATH", pipeline->name, lacks);
	cr_assert_eq(contract_run(pipeline, contract_seed(), contract_operations()), 0);
}
