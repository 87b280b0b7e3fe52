/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/bf16_onednn.h"

int onednn_fail(struct err *err, const char *what, dnnl_status_t status)
{
    return err_set(err, ERR_OTHER, "oneDNN %d.%d.%d: %s failed with status %d",
                   DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH, what,
                   (int)status);
}

#if DNNL_VERSION_MAJOR >= 3
onednn_view onednn_view_of(const dnnl_memory_desc_t *d)
{
    return *d;
}

dnnl_status_t onednn_desc_strided(dnnl_memory_desc_t *d, dnnl_dims_t dims,
                                  dnnl_data_type_t type, dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(d, 2, dims, type, strides);
}

dnnl_status_t onednn_desc_any(dnnl_memory_desc_t *d, dnnl_dims_t dims)
{
    return dnnl_memory_desc_create_with_tag(d, 2, dims, dnnl_bf16, dnnl_format_tag_any);
}

dnnl_status_t onednn_desc_copy(dnnl_memory_desc_t *d, onednn_view from)
{
    return dnnl_memory_desc_clone(d, from);
}

void onednn_desc_free(dnnl_memory_desc_t *d)
{
    dnnl_memory_desc_destroy(*d);
}

dnnl_status_t onednn_append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
}

dnnl_status_t onednn_matmul_desc(dnnl_primitive_desc_t *p, dnnl_engine_t engine,
                                 onednn_view a, onednn_view b, onednn_view c,
                                 dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(p, engine, a, b, NULL, c, attr);
}
#else
onednn_view onednn_view_of(const dnnl_memory_desc_t *d)
{
    return d;
}

dnnl_status_t onednn_desc_strided(dnnl_memory_desc_t *d, dnnl_dims_t dims,
                                  dnnl_data_type_t type, dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(d, 2, dims, type, strides);
}

dnnl_status_t onednn_desc_any(dnnl_memory_desc_t *d, dnnl_dims_t dims)
{
    return dnnl_memory_desc_init_by_tag(d, 2, dims, dnnl_bf16, dnnl_format_tag_any);
}

dnnl_status_t onednn_desc_copy(dnnl_memory_desc_t *d, onednn_view from)
{
    *d = *from;
    return dnnl_success;
}

void onednn_desc_free(dnnl_memory_desc_t *d)
{
    (void)d;
}

dnnl_status_t onednn_append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f);
}

dnnl_status_t onednn_matmul_desc(dnnl_primitive_desc_t *p, dnnl_engine_t engine,
                                 onednn_view a, onednn_view b, onednn_view c,
                                 dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t d;
    dnnl_status_t s = dnnl_matmul_desc_init(&d, a, b, NULL, c);
    return s == dnnl_success ? dnnl_primitive_desc_create(p, &d, attr, engine, NULL)
                             : s;
}
#endif
