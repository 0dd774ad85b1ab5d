# What csrc/fastopt.h declares, for Cython.

from libc.stdint cimport int64_t, uint64_t

cdef extern from "fastopt.h" nogil:
    enum:
        FO_CHUNK, FO_LANES, FO_PER_THREAD, FO_MAX_BUFFERS, FO_MAX_COEFS, FO_MAX_CALLS, FO_KERNEL_COUNT
        FO_F32, FO_F64
        FO_SLOT_P, FO_SLOT_G, FO_SLOT_AVERAGE, FO_SLOT_STATE, FO_SLOT_SCRATCH
        FO_MAX_STATE, FO_MAX_SCRATCH, FO_MAX_REGISTERS, FO_ALL, FO_MAX_SUMS, FO_MAX_OUTS, FO_SUM_COUNT, FO_SCALAR_COUNT
        FO_WALK_PASS, FO_FACTORED_PASS, FO_SCALAR_PASS, FO_LIKE_P, FO_ROWS, FO_COLUMNS, FO_REDUCTION_COUNT
        fo_r_sum_squares, fo_r_sum_abs, fo_r_max_abs

    ctypedef struct fo_kernel_info:
        const char* name
        char kind
        int buffers
        int coefs
        const char** buffer
        const char** coef
    const fo_kernel_info* fo_registry

    ctypedef struct fo_sum_info:
        const char* name
        int buffers
        const char** buffer
    const fo_sum_info* fo_sums
    ctypedef struct fo_scalar_info:
        const char* name
        int ins
        int outs
        const char** in_ "in"
        const char** out
        void (*run)(const double* in_, double* out)
    const fo_scalar_info* fo_scalars

    double fo_run_sum(int sum, int dtype, Py_ssize_t n, const void** in_)
    void fo_run_factors(int dtype, Py_ssize_t rows, Py_ssize_t columns, const double* row_sums, const double* column_sums,
                        void* r, void* c, void* a, const double* coef)
    void fo_run(int id, int dtype, Py_ssize_t n, void** buf, const double* coef, int flush)
    int fo_isa_count()
    const char* fo_isa_name(int isa)
    int fo_isa_available(int isa)
    int fo_isa_active()
    void fo_isa_use(int isa)
    double fo_power(double base, int64_t n)
    double fo_exp(double x)
    double fo_log(double x)
    uint64_t fo_flush(int on)
    void fo_restore(uint64_t control)
    uint64_t fo_control()

    ctypedef struct fo_view:
        char* data
        char* checked
        const Py_ssize_t* shape
        const Py_ssize_t* strides
        Py_ssize_t* extents
        Py_ssize_t size
        int room
        int ndim
        int fortran
        int dense
        int dtype
        int group
    double fo_norm(const fo_view* views, Py_ssize_t count, int kind, int flush, int* finite)
    void fo_rewrite(const fo_view* views, Py_ssize_t count, double max_norm, double norm, double bound,
                    int flush)

    ctypedef struct fo_loss:
        int dtype
        int flush
        int threads
        Py_ssize_t rows
        Py_ssize_t columns
        const void* prediction
        const void* target
        const int64_t* classes
        const double* weights
        double scale
        void* gradient
        double* losses
    int fo_softmax_cross_entropy(const fo_loss* loss)
    void fo_sigmoid_cross_entropy(const fo_loss* loss)
    double fo_squared_error(const fo_loss* loss)

    int fo_plain(int kernel)
    int fo_slot(int kernel, int buffer)
    int fo_bands(Py_ssize_t rows)
    ctypedef struct fo_call:
        int kernel
        int buffers
        int coefs
        int registers
        int* slot
        int* reg
        double* coef
    ctypedef struct fo_sum:
        int reduction
        int buffers
        int reg
        int* slot
    ctypedef struct fo_pass:
        int kind
        int calls
        int edits
        int fuses
        int reads
        int copies
        int wide
        int sums
        int all
        int outs
        int go
        fo_call* call
        fo_sum* sum
        int* out
    ctypedef struct fo_program:
        int passes
        int rule
        int group
        int all
        char* extent
        fo_pass* pass_ "pass"
    ctypedef struct fo_rule:
        double* reg
        int go
    ctypedef struct fo_group:
        double sign
        double max_norm
    ctypedef struct fo_tensor:
        char** slot
        Py_ssize_t size
        int dtype
        Py_ssize_t first_block
        int program
        Py_ssize_t matrices
        Py_ssize_t rows
        Py_ssize_t columns
        double* lines
        double* reg
    ctypedef struct fo_plan:
        fo_tensor* tensors
        fo_view* grads
        Py_ssize_t count
        fo_program* programs
        fo_rule* rules
        fo_group* groups
        int program_count
        int rule_count
        int group_count
        int phases
        int all
        double* parts
        Py_ssize_t blocks
        Py_ssize_t elements
        Py_ssize_t per_thread
        Py_ssize_t chunk
        int threads
        int always_pool
        double max_norm
        int by_group
        Py_ssize_t bytes
        double unscale
        int flush
        int measure
        double norm
    int fo_claim(fo_plan* plan)
    void fo_yield(fo_plan* plan)
    int fo_step(fo_plan* plan)

    ctypedef struct fo_vectors:
        char* x
        char* g
        char* d
        char* trial_x
        char* trial_g
        char* pairs
        double* rho
        double* alpha
        double gamma
        Py_ssize_t n
        Py_ssize_t stride
        int dtype
        int slots
        int count
        int newest
    double fo_direction(fo_vectors* v)
    void fo_move(fo_vectors* v, double alpha)
    double fo_dot(int dtype, Py_ssize_t n, const void* a, const void* b)
    int fo_remember(fo_vectors* v, int given)
    int fo_spare(const fo_vectors* v)
    int fo_asks_ahead(Py_ssize_t bytes)
    void fo_prefetch(int always)
    int fo_threads_started()
    int fo_threads_available()
    int fo_controls(uint64_t* words, int threads)
